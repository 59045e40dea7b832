package model

// Verb is what an Op does.
type Verb uint8

// Verbs.
const (
	Create  Verb = iota + 1 // fails when the id or name exists
	Replace                 // fails when it does not exist
	Delete                  // fails when it does not exist or is referred to
)

// Op is one step of a transaction.
type Op struct {
	Verb   Verb
	Object Object // for Delete only the kind and id count
	// IfRevision, when not 0, is the revision the object must still have.
	IfRevision int64
	// Tenant, when not empty, is on whose behalf it is: what others have and do not share does not exist for it, and
	// what others share cannot be changed. All ops of a transaction have the same.
	Tenant string
}

// Change is what a transaction does to one object, all its ops taken together.
type Change struct {
	Old Object // nil: created
	New Object // nil: deleted
}
