package store

import (
	"context"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

// Bundles is the virtual network in parts (model.Bundle), for whoever holds some of it. Every implementation passes
// storetest.RunBundles. Safe for concurrent use.
type Bundles interface {
	// Feed begins a stream in which nothing is wanted yet. It ends with ctx or when it breaks.
	Feed(ctx context.Context) (Feed, error)
	// Digests tells what bundles hold at present, cheaply.
	Digests(ctx context.Context, bs ...model.Bundle) ([]Digest, error)
}

// Feed is a stream of bundles. Safe for concurrent use.
type Feed interface {
	// Want asks for bundles: first an event with the whole of each comes, then its changes. Of one that is wanted already,
	// the whole comes once more. What comes is not newer than the rest: changes of others up to its revision have come before it. It does not wait.
	Want(bs ...model.Bundle)
	// Leave ends that; events that are under way may still come. It does not wait.
	Leave(bs ...model.Bundle)
	// Mark asks how far the stream is: an event with Mark comes once it is known. When several are asked for, one may answer them all.
	// While nothing is wanted none comes. It does not wait.
	Mark()
	// Events is closed when the stream has broken, or its context has ended. The caller must keep reading.
	Events() <-chan BundleEvent
}

// BundleEvent is the whole of a bundle, or one change of it: what one transaction did to it comes together. What
// it did to several bundles comes in one event for each, with the same revision, in no order. Consumers are to expect the worst of a
// stream: that events are lost, come twice or in another order. Revision and Seq tell.
type BundleEvent struct {
	// Mark: of all bundles whose whole has come, every change up to Revision has come, too. Nothing else is set.
	Mark   bool
	Bundle model.Bundle
	// Revision is the transaction's; with Whole the one at which the bundle was read.
	Revision int64
	// Seq counts the changes of the bundle: it is one more than that of the change before. 0: nobody has changed it since it is over,
	// or has ever.
	Seq   int64
	Whole bool // Objects are all that there is; otherwise those that are new or have changed
	// Over: with this change the object whose bundle it is was deleted, and the bundle is empty.
	Over bool
	// Objects belong to the caller. Their Revision is that of the last change of the object or of its being in the bundle.
	Objects []model.Object
	Gone    []model.Key // no longer in the bundle
}

// Digest is what two holders of a bundle compare.
type Digest struct {
	Seq int64
	N   int   // objects
	Sum int64 // of their revisions, as in BundleEvent
}

// Add takes an object into the digest.
func (d *Digest) Add(revision int64) { d.N++; d.Sum += revision }
