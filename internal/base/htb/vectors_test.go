package htb

import (
	"slices"
	"testing"
)

// The reference's vectors. Adapted:
//
//	T5  a leaf of size 0 draws on the root, so it obtains the root's token
//	T6  there is no rate object: what is returned is distributed, once
//	T7  no multiplier: every token is one packet; covered by TestReturnedIsDistributed
//	T8  as T7, concurrently: TestConcurrent
//	P1  no multiplier, tunnel and VTEP have a bucket of their own each: other sizes and names
//	D4  what fits nowhere is given back to the caller, not destroyed
//	D11, D12  tunnel and VTEP together get half, whatever their number, so VMs get half
//	D13 addTokens does not exist: tokens come back through the root alone
//
// The generic tree is tested where the vector speaks of a tree (T1-T5, D1-D10), the Policy where
// it speaks of ports.

type node struct {
	name              string
	capacity, initial int64
	request           int
	kids              []node
}

type want struct{ in, obtained, holds int64 }

func TestReferenceTicks(t *testing.T) {
	tests := []struct {
		name             string
		root             node
		ticks            int
		returned, flying int64
		want             map[string]want
	}{
		{"T1 one bucket can retrieve twice its capacity",
			node{"root", 0, 0, 0, []node{{"2", 16, 0, 0, nil}, {"1", 16, 0, 16, nil}}}, 2, 16, 0,
			map[string]want{"1": {32, 32, 0}, "2": {16, 0, 16}}},
		{"T2 distribution is fair",
			node{"root", 0, 0, 0, []node{{"4", 16, 0, 2, nil}, {"1", 0, 0, 0, []node{{"3", 16, 8, 0, nil}, {"2", 16, 8, 0, nil}}}}}, 8, 2, 32,
			map[string]want{"4": {8, 8, 0}, "3": {4, 0, 12}, "2": {4, 0, 12}}},
		{"T3 all others full, sender gets all",
			node{"root", 0, 0, 0, []node{{"4", 3, 3, 0, nil}, {"1", 0, 0, 0, []node{{"3", 3, 0, 1, nil}, {"2", 3, 3, 0, nil}}}}}, 3, 1, 3,
			map[string]want{"4": {0, 0, 3}, "3": {3, 3, 0}, "2": {0, 0, 3}}},
		{"T4 one token ping-pongs",
			node{"root", 0, 0, 0, []node{{"2", 1, 0, 1, nil}, {"1", 1, 0, 1, nil}}}, 10, 1, 2,
			map[string]want{"2": {5, 5, 0}, "1": {5, 5, 0}}},
		{"T5 0-sized leaf draws on the root (adapted)",
			node{"root", 1, 1, 0, []node{{"1", 0, 0, 1, nil}}}, 2, 2, 0,
			map[string]want{"1": {2, 2, 0}}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			type leaf struct {
				node
				b        *bucket
				obtained int64
			}
			var leaves []*leaf
			var sum, initial int64
			var build func(parent *bucket, n node) *bucket
			build = func(parent *bucket, n node) *bucket {
				b := newBucket(parent, n.name, n.capacity, 1, nil)
				*b.cell = n.initial
				initial += n.initial
				for _, k := range n.kids {
					build(b, k)
				}
				if n.kids == nil {
					leaves = append(leaves, &leaf{node: n, b: b})
					sum += n.capacity
				}
				return b
			}
			root := build(nil, tt.root)
			root.capacity = max(root.capacity, sum)
			flying := tt.flying
			root.distribute(root.capacity - flying - initial)
			for range tt.ticks {
				back := min(flying, tt.returned)
				flying -= back
				if x := root.distribute(back); x != 0 {
					t.Fatalf("%d tokens did not fit", x)
				}
				for _, l := range leaves {
					for range l.request {
						if ok, _ := Take(l.b.cell, root.cell); ok {
							l.obtained++
							flying++
						}
					}
				}
			}
			for _, l := range leaves {
				got := want{tokens(l.b) - l.initial + l.obtained, l.obtained, tokens(l.b)}
				if got != tt.want[l.name] {
					t.Errorf("leaf %s: got %+v, want %+v", l.name, got, tt.want[l.name])
				}
			}
			held := tokens(root)
			for _, l := range leaves {
				held += tokens(l.b)
			}
			if held+flying != root.capacity {
				t.Errorf("held %d + in flight %d != %d", held, flying, root.capacity)
			}
		})
	}
}

func TestReferenceDistribution(t *testing.T) {
	leaf := func(name string, capacity, initial int64) node { return node{name, capacity, initial, 0, nil} }
	tests := []struct {
		name   string
		root   node
		give   []int64
		want   [][]int64 // after each: depth first, the root last
		excess int64
	}{
		{"D1", node{"root", 10, 0, 0, []node{leaf("a", 2, 0), leaf("b", 2, 0)}}, []int64{5}, [][]int64{{2, 2, 1}}, 0},
		{"D2", node{"root", 10, 0, 0, []node{leaf("a", 2, 0), leaf("b", 2, 0)}}, []int64{3}, [][]int64{{2, 1, 0}}, 0},
		{"D3", node{"root", 10, 0, 0, []node{leaf("a", 1, 0), leaf("b", 5, 0)}}, []int64{4}, [][]int64{{1, 3, 0}}, 0},
		{"D4 (3 given back)", node{"root", 0, 0, 0, []node{leaf("a", 1, 0), leaf("b", 1, 0)}}, []int64{5}, [][]int64{{1, 1, 0}}, 3},
		{"D5", node{"root", 10, 0, 0, []node{leaf("tun", 4, 0), {"vms", 0, 0, 0, []node{leaf("v1", 2, 0), leaf("v2", 2, 0)}}}}, []int64{6}, [][]int64{{3, 2, 1, 0, 0}}, 0},
		{"D6", node{"root", 10, 0, 0, []node{leaf("tun", 4, 0), {"vms", 0, 0, 0, []node{leaf("v1", 2, 0), leaf("v2", 2, 0)}}}}, []int64{4}, [][]int64{{2, 1, 1, 0, 0}}, 0},
		{"D7", node{"root", 10, 0, 0, []node{leaf("tun", 4, 0), {"vms", 0, 0, 0, []node{leaf("v1", 2, 2)}}}}, []int64{3}, [][]int64{{3, 2, 0, 0}}, 0},
		{"D8", node{"root", 10, 0, 0, []node{leaf("tun", 1, 0), {"mid", 2, 0, 0, []node{leaf("v1", 1, 0)}}}}, []int64{6}, [][]int64{{1, 1, 2, 2}}, 0},
		{"D9", node{"root", 3, 3, 0, []node{leaf("a", 4, 0)}}, []int64{0}, [][]int64{{3, 0}}, 0},
		{"D10", node{"root", 99, 0, 0, []node{leaf("a", 5, 0), leaf("b", 5, 0), leaf("c", 5, 0)}}, []int64{1, 1, 1, 2},
			[][]int64{{1, 0, 0, 0}, {1, 1, 0, 0}, {1, 1, 1, 0}, {2, 2, 1, 0}}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var all []*bucket
			var build func(parent *bucket, n node) *bucket
			build = func(parent *bucket, n node) *bucket {
				b := newBucket(parent, n.name, n.capacity, 1, nil)
				*b.cell = n.initial
				for _, k := range n.kids {
					build(b, k)
				}
				all = append(all, b)
				return b
			}
			root := build(nil, tt.root)
			var excess int64
			for i, n := range tt.give {
				excess += root.distribute(n)
				var got []int64
				for _, b := range all {
					got = append(got, tokens(b))
				}
				if !slices.Equal(got, tt.want[i]) {
					t.Fatalf("after %d: got %v, want %v", n, got, tt.want[i])
				}
			}
			if excess != tt.excess {
				t.Fatalf("excess %d, want %d", excess, tt.excess)
			}
		})
	}
}

// D11 and D12 as the design has them: half for the VMs.
func TestReferenceShares(t *testing.T) {
	for _, tt := range []struct {
		name    string
		tunnels int
		give    int
		want    []int64 // tunnels, VTEP, VMs
	}{
		{"D11", 1, 12, []int64{3, 3, 3, 3}},
		{"D12", 2, 16, []int64{2, 2, 4, 4, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := DefaultConfig()
			p := New(cfg, nil)
			var ls []*Leaf
			for range tt.tunnels {
				ls = append(ls, link(p, "tun", Tunnel, nil))
			}
			ls = append(ls, link(p, "vtep", VTEP, nil), link(p, "v1", VM, nil), link(p, "v2", VM, nil))
			for i, l := range ls { // empty everything; the last one takes what is at the root
				for l.Tokens() > 0 || i == len(ls)-1 {
					if !p.TryTake(l) {
						break
					}
				}
			}
			back(p, tt.give)
			var got []int64
			for _, l := range ls {
				got = append(got, l.Tokens())
			}
			if !slices.Equal(got, tt.want) {
				t.Fatalf("got %v, want %v", got, tt.want)
			}
		})
	}
}
