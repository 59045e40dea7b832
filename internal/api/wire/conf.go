package wire

// ConfKey is an entry of the configuration's schema.
type ConfKey struct {
	Key     string `json:"key" doc:"Name."`
	Type    string `json:"type" enum:"integer,duration,choice" doc:"Type of its values."`
	Default any    `json:"default" doc:"Value where no layer has one: a number for an integer, else text."`
	Unit    string `json:"unit,omitempty" doc:"What an integer counts."`
	Range   string `json:"range" doc:"Which values it takes, in words."`
	Restart bool   `json:"restart" doc:"Whether a change applies only when the agent is started again."`
	Text    string `json:"text" doc:"What it means."`
}

// ConfSchema is the list of all keys.
type ConfSchema struct {
	Keys []ConfKey `json:"keys" nullable:"false" doc:"All keys, by section."`
}

// ConfTemplate is a template.
type ConfTemplate struct {
	Name   string         `json:"name" doc:"Name; every host has the one called default."`
	Values map[string]any `json:"values" doc:"Values by key: numbers for integers, else text."`
	Hosts  int            `json:"hosts" doc:"How many hosts it is assigned to."`
}

// ConfTemplates is the list of them.
type ConfTemplates struct {
	Revision  int64          `json:"revision" doc:"Revision of the store that was read."`
	Templates []ConfTemplate `json:"templates" nullable:"false" doc:"All templates, by name."`
}

// ConfHost is what is set for a host, and what its agent says.
type ConfHost struct {
	ID       string         `json:"id" doc:"Identifier of the host."`
	Name     string         `json:"name,omitempty" doc:"Name of the host."`
	Template string         `json:"template,omitempty" doc:"Template that is assigned to it."`
	Values   map[string]any `json:"values" doc:"Values of its own, by key."`
	Agent    *ConfReport    `json:"agent,omitempty" doc:"What its agent reports; absent when none runs."`
}

// ConfReport is what an agent says.
type ConfReport struct {
	Revision int64    `json:"revision" doc:"What the store had at this revision is applied, but for what is pending."`
	Pending  []string `json:"pending,omitempty" doc:"Keys whose values apply when the agent is started again."`
	Problems []string `json:"problems,omitempty" doc:"What it could not apply, and why."`
}

// ConfHosts is the list of them.
type ConfHosts struct {
	Revision int64      `json:"revision" doc:"Revision of the store that was read."`
	Hosts    []ConfHost `json:"hosts" nullable:"false" doc:"All hosts, by name."`
}

// ConfValue is a value that counts.
type ConfValue struct {
	Key     string `json:"key" doc:"Name of the key."`
	Value   any    `json:"value" doc:"Value: a number for an integer, else text."`
	Source  string `json:"source" doc:"Where it comes from: host, template NAME or schema."`
	Restart bool   `json:"restart,omitempty" doc:"Whether a change applies only when the agent is started again."`
}

// ConfEffective is what counts on a host.
type ConfEffective struct {
	Revision int64       `json:"revision" doc:"Revision of the store that was read."`
	Values   []ConfValue `json:"values" nullable:"false" doc:"Every key, by section."`
	Ignored  []string    `json:"ignored,omitempty" doc:"What the store has and this version cannot use, and why."`
}

// ConfChange is a change of one layer.
type ConfChange struct {
	Template string         `json:"template,omitempty" doc:"The template that is changed; it is made when it does not exist."`
	Host     string         `json:"host,omitempty" doc:"Or the id of the host."`
	Clear    bool           `json:"clear,omitempty" doc:"First remove all values and, of a host, its template."`
	Set      map[string]any `json:"set,omitempty" doc:"Values by key: numbers or text."`
	Unset    []string       `json:"unset,omitempty" doc:"Keys to remove."`
	Assign   *string        `json:"assign,omitempty" doc:"Template that the host gets; empty: none."`
	Delete   bool           `json:"delete,omitempty" doc:"Delete the template. No host may have it."`
}

// ConfChanges are made all or none.
type ConfChanges struct {
	Changes []ConfChange `json:"changes" nullable:"false" minItems:"1" doc:"In this order; references to templates are checked at the end."`
}

// ConfCommitted is how changes ended.
type ConfCommitted struct {
	Revision int64    `json:"revision" doc:"Revision of the store with the changes in it."`
	Changed  bool     `json:"changed" doc:"Whether anything is different now."`
	Restart  []string `json:"restart,omitempty" doc:"Changed keys whose values apply when an agent is started again."`
}
