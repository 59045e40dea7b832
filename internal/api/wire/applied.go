package wire

// AppliedQuestion asks which hosts have applied what there was at a revision.
type AppliedQuestion struct {
	Revision int64 `json:"revision" minimum:"1" doc:"Revision that a change gave."`
}

// Applied says how many have. Hosts are asked by the question: ask again until they have answered.
type Applied struct {
	Running int      `json:"running" doc:"How many hosts have an agent that runs."`
	Applied int      `json:"applied" doc:"How many of them have applied it."`
	Lagging []string `json:"lagging" nullable:"false" doc:"Those that have not, by name, as far as who asks may know about hosts."`
}
