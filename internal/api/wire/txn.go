package wire

import (
	"errors"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Any is an object of any kind: exactly one field is set.
type Any struct {
	Bridge  *Bridge     `json:"bridge,omitempty"`
	Router  *Router     `json:"router,omitempty"`
	Port    *Port       `json:"port,omitempty"`
	Route   *Route      `json:"route,omitempty"`
	Zone    *TunnelZone `json:"tunnel_zone,omitempty"`
	Host    *Host       `json:"host,omitempty"`
	Binding *Binding    `json:"binding,omitempty"`

	FloatingIP   *FloatingIP   `json:"floating_ip,omitempty"`
	Chain        *Chain        `json:"chain,omitempty"`
	Rule         *Rule         `json:"rule,omitempty"`
	PortGroup    *PortGroup    `json:"port_group,omitempty"`
	AddressGroup *AddressGroup `json:"address_group,omitempty"`
	Subnet       *Subnet       `json:"subnet,omitempty"`
	LoadBalancer *LoadBalancer `json:"load_balancer,omitempty"`
	Pool         *Pool         `json:"pool,omitempty"`
	PoolMember   *PoolMember   `json:"pool_member,omitempty"`

	QoSPolicy *QoSPolicy `json:"qos_policy,omitempty"`
	Mirror    *Mirror    `json:"mirror,omitempty"`

	SecurityGroup     *SecurityGroup     `json:"security_group,omitempty"`
	SecurityGroupRule *SecurityGroupRule `json:"security_group_rule,omitempty"`
}

// Wrap puts an object into the field of its kind.
func Wrap(o Object) *Any {
	a := new(Any)
	switch o := o.(type) {
	case *Bridge:
		a.Bridge = o
	case *Router:
		a.Router = o
	case *Port:
		a.Port = o
	case *Route:
		a.Route = o
	case *TunnelZone:
		a.Zone = o
	case *Host:
		a.Host = o
	case *Binding:
		a.Binding = o
	case *FloatingIP:
		a.FloatingIP = o
	case *Chain:
		a.Chain = o
	case *Rule:
		a.Rule = o
	case *PortGroup:
		a.PortGroup = o
	case *AddressGroup:
		a.AddressGroup = o
	case *Subnet:
		a.Subnet = o
	case *LoadBalancer:
		a.LoadBalancer = o
	case *Pool:
		a.Pool = o
	case *PoolMember:
		a.PoolMember = o
	case *QoSPolicy:
		a.QoSPolicy = o
	case *Mirror:
		a.Mirror = o
	case *SecurityGroup:
		a.SecurityGroup = o
	case *SecurityGroupRule:
		a.SecurityGroupRule = o
	}
	return a
}

// Object returns the one object that is set, or an error when it is not exactly one.
func (a *Any) Object() (Object, error) {
	var found Object
	n := 0
	set := func(o Object, ok bool) {
		if ok {
			found = o
			n++
		}
	}
	set(a.Bridge, a.Bridge != nil)
	set(a.Router, a.Router != nil)
	set(a.Port, a.Port != nil)
	set(a.Route, a.Route != nil)
	set(a.Zone, a.Zone != nil)
	set(a.Host, a.Host != nil)
	set(a.Binding, a.Binding != nil)
	set(a.Subnet, a.Subnet != nil)
	set(a.LoadBalancer, a.LoadBalancer != nil)
	set(a.Pool, a.Pool != nil)
	set(a.PoolMember, a.PoolMember != nil)
	set(a.FloatingIP, a.FloatingIP != nil)
	set(a.Chain, a.Chain != nil)
	set(a.Rule, a.Rule != nil)
	set(a.PortGroup, a.PortGroup != nil)
	set(a.AddressGroup, a.AddressGroup != nil)
	set(a.QoSPolicy, a.QoSPolicy != nil)
	set(a.Mirror, a.Mirror != nil)
	set(a.SecurityGroup, a.SecurityGroup != nil)
	set(a.SecurityGroupRule, a.SecurityGroupRule != nil)
	if n != 1 {
		return nil, errors.New("exactly one of " + kindList() + " must be given")
	}
	return found, nil
}

// Ref names an object.
type Ref struct {
	Kind model.Kind `json:"kind" enum:"bridge,router,port,route,tunnel_zone,host,binding,floating_ip,chain,rule,port_group,address_group,subnet,qos_policy,mirror,security_group,security_group_rule,load_balancer,pool,pool_member" doc:"Kind of the object."`
	ID   string     `json:"id" format:"uuid" doc:"Identifier of the object."`
}

// Subject is the object that a problem concerns.
type Subject struct {
	Kind model.Kind `json:"kind" doc:"Kind of the object."`
	ID   string     `json:"id" format:"uuid" doc:"Identifier of the object."`
	Name string     `json:"name,omitempty" doc:"Name of the object."`
	// Field as the model calls it: without the "_id" of references.
	Field string `json:"field,omitempty" doc:"Field that is wrong, such as addresses[0]; for those of the request errors[] has the location."`
}

// Op is one step of a transaction: exactly one of Create, Replace and Delete is set.
type Op struct {
	Create     *Any  `json:"create,omitempty" doc:"Object to create; fails when its id or name exists."`
	Replace    *Any  `json:"replace,omitempty" doc:"Whole new state of an object, which is found by its id; fails when it does not exist."`
	Delete     *Ref  `json:"delete,omitempty" doc:"Object to delete; fails when it does not exist or is referred to once the transaction is done."`
	IfRevision int64 `json:"if_revision,omitempty" minimum:"0" doc:"Revision that the object must still have; 0: any."`
}

// Transaction is a request: all of its operations take effect, or none.
type Transaction struct {
	Ops []Op `json:"ops" minItems:"1" maxItems:"10000" doc:"Operations. The result is checked as a whole, so they may refer to each other in any order."`
}

// Committed is the answer to a transaction.
type Committed struct {
	Revision int64  `json:"revision" doc:"Revision of the change."`
	Objects  []*Any `json:"objects" nullable:"false" doc:"What was created and replaced, in the order of the operations."`
}

// List is a page of objects of one kind.
type List[T any] struct {
	Revision int64 `json:"revision" doc:"Revision at which the objects were read."`
	Items    []T   `json:"items" nullable:"false" doc:"Objects, ordered by name, then id."`
}

// EventType says what an Event is.
type EventType string

// Event types.
const (
	EventPut    EventType = "put"    // created or replaced
	EventDelete EventType = "delete" // Object is the last state
	EventSynced EventType = "synced" // the initial state is complete
)

// Event is one line of a watch.
type Event struct {
	Type     EventType `json:"type" enum:"put,delete,synced" doc:"put: created or replaced; delete: the object is the last state; synced: the initial state is complete."`
	Revision int64     `json:"revision" doc:"Revision of the change; events of one transaction share it."`
	Object   *Any      `json:"object,omitempty" doc:"The object; absent for synced. Of a deletion at least the id."`
	Last     bool      `json:"last,omitempty" doc:"The last event of its transaction: who applies what came up to here never sees half of one."`
}

// Version is what a server says about itself.
type Version struct {
	Version   string `json:"version" doc:"Version of the server."`
	GoVersion string `json:"go_version" doc:"Version of Go that built it."`
	Platform  string `json:"platform" doc:"Operating system and architecture."`
}

// Principal is who asks.
type Principal struct {
	Name   string `json:"name" doc:"Name of the token or the certificate; local for who is on the server's machine."`
	Role   string `json:"role" doc:"admin, operator, tenant, read-only or agent."`
	Tenant string `json:"tenant,omitempty" doc:"Whose objects it sees; absent: everybody's."`
	Host   string `json:"host,omitempty" doc:"Host whose agent it is."`
}

// Problem types, as problem+json names them.
const (
	ProblemNotFound    = "urn:viaduct:problem:not-found"
	ProblemConflict    = "urn:viaduct:problem:conflict"
	ProblemExists      = "urn:viaduct:problem:exists"
	ProblemInvalid     = "urn:viaduct:problem:invalid"
	ProblemReferenced  = "urn:viaduct:problem:referenced"
	ProblemUnavailable = "urn:viaduct:problem:unavailable"
	ProblemDenied      = "urn:viaduct:problem:denied"

	ProblemUnauthenticated = "urn:viaduct:problem:unauthenticated"
)
