package htb

import "sync/atomic"

// Bucket is one line of a Snapshot.
type Bucket struct {
	Name     string // path from the root
	Depth    int    // 0: root
	Capacity int64
	Tokens   int64
	Share    int64
	Leaf     bool
	Class    Class // of a leaf
}

// Account is where the tokens are.
type Account struct {
	Total    int64  // that there shall be: max(global, sum of the leaves' capacities)
	Debt     int64  // in flight beyond Total since leaves were unlinked or shrunk
	Held     int64  // in buckets, or returned and about to be distributed
	InFlight int64  // with packets: Total + Debt - Held
	Returned uint64 // since the start
	// Surplus counts returned tokens that nobody had taken. They are thrown away. Not 0:
	// somebody returns a token twice.
	Surplus uint64
}

// Snapshot lists the buckets in depth-first order, for display.
func (p *Policy) Snapshot() []Bucket {
	defer p.distributePending()
	p.mu.Lock()
	defer p.mu.Unlock()
	var out []Bucket
	var walk func(b *bucket, depth int)
	walk = func(b *bucket, depth int) {
		s := Bucket{Name: b.name, Depth: depth, Capacity: b.capacity, Tokens: max(atomic.LoadInt64(b.cell), 0), Share: b.share}
		for class, parent := range p.parent {
			if b.parent == parent {
				s.Leaf, s.Class = true, Class(class)
			}
		}
		out = append(out, s)
		for _, c := range b.children {
			walk(c, depth+1)
		}
	}
	walk(p.root, 0)
	return out
}

// Total is the number of tokens in the system, in flight or not, once debts are paid.
func (p *Policy) Total() int64 { return p.Account().Total }

// Account adds up where the tokens are. The datapath's count of admitted packets is Returned +
// InFlight (less what was taken before the Policy was made). It is exact while
// nobody takes or returns, else off by what happened during the call.
func (p *Policy) Account() Account {
	defer p.distributePending()
	p.mu.Lock()
	defer p.mu.Unlock()
	back := p.pending.Load()
	_, held := p.root.survey()
	held += back
	for _, cell := range p.closing {
		held += atomic.LoadInt64(cell)
	}
	return Account{
		Total: p.total, Debt: p.debt, Held: held, InFlight: p.total + p.debt - held,
		Returned: p.returned + uint64(back), Surplus: p.surplus,
	}
}

// TryTake does for a leaf what the datapath does: it takes a token from it or, when it is
// empty, one that has accumulated at the root.
func (p *Policy) TryTake(l *Leaf) bool {
	ok, _ := Take(l.b.cell, p.root.cell)
	return ok
}
