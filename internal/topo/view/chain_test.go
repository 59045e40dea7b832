package view

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/uuid"
	"pgregory.net/rapid"
)

// A group that takes the place of another is what it would be without it; and the other one stays what it was.
func TestNextAddressGroup(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		prefix := rapid.Custom(func(t *rapid.T) netip.Prefix {
			a := netip.AddrFrom4([4]byte{10, 0, byte(rapid.IntRange(0, 1).Draw(t, "c")), rapid.Byte().Draw(t, "d")})
			if rapid.Bool().Draw(t, "six") {
				a = netip.AddrFrom16([16]byte{0: 0xfd, 14: byte(rapid.IntRange(0, 1).Draw(t, "c")), 15: rapid.Byte().Draw(t, "d")})
			}
			return netip.PrefixFrom(a, rapid.SampledFrom([]int{a.BitLen(), a.BitLen(), a.BitLen() - 2, a.BitLen() - 9}).Draw(t, "bits"))
		})
		list := rapid.SliceOfN(prefix, 0, 100).Draw(t, "addresses")
		var group *AddressGroup
		for range rapid.IntRange(1, 10).Draw(t, "changes") {
			for range rapid.IntRange(0, 4).Draw(t, "gone") {
				if n := len(list); n > 0 {
					i := rapid.IntRange(0, n-1).Draw(t, "i")
					list = slices.Delete(slices.Clone(list), i, i+1)
				}
			}
			list = append(slices.Clone(list), rapid.SliceOfN(prefix, 0, 4).Draw(t, "new")...)
			was, before := group, text(group)
			group = NewAddressGroup(uuid.Max, "g", slices.Clone(list), was)
			fresh := NewAddressGroup(uuid.Max, "g", slices.Clone(list), nil)
			if !slices.Equal(group.Addresses, fresh.Addresses) || text(group) != text(fresh) {
				t.Fatalf("%v\n%s\nwant\n%s", group.Addresses, text(group), text(fresh))
			}
			if group.ID != fresh.ID || group.Name != fresh.Name || !group.table.Equal(fresh.table) {
				t.Fatalf("it looks another way: %v", group.Addresses)
			}
			if text(was) != before {
				t.Fatalf("the group before has changed to\n%s\nwas\n%s", text(was), before)
			}
			went, came := was.Diff(group)
			mine := map[netip.Prefix]int{}
			if was != nil {
				for _, a := range was.Addresses {
					mine[a]++
				}
			}
			for _, a := range group.Addresses {
				mine[a]--
			}
			for _, a := range went {
				mine[a]--
			}
			for _, a := range came {
				mine[a]++
			}
			for a, n := range mine {
				if n != 0 {
					t.Fatalf("%s: went %v, came %v", a, went, came)
				}
			}
		}
	})
}

// text is what a group holds, for whoever looks addresses up.
func text(g *AddressGroup) string {
	if g == nil {
		return ""
	}
	return fmt.Sprint(slices.Collect(g.table.AllSorted()))
}
