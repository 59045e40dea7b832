package ebpf

import (
	"bytes"
	"testing"

	"github.com/cilium/ebpf/btf"
)

func TestMovesBetween(t *testing.T) {
	u8, u16, u32 := &btf.Int{Size: 1}, &btf.Int{Size: 2}, &btf.Int{Size: 4}
	s32, s64 := &btf.Int{Size: 4, Encoding: btf.Signed}, &btf.Int{Size: 8, Encoding: btf.Signed}
	field := func(name string, t btf.Type, at btf.Bits) btf.Member {
		return btf.Member{Name: name, Type: t, Offset: at * 8}
	}
	was := &btf.Struct{Name: "x", Size: 8, Members: []btf.Member{
		field("a", u8, 0), field("gone", u8, 1), field("b", u16, 2), field("list", &btf.Array{Type: u16, Nelems: 2}, 4),
	}}
	is := &btf.Struct{Name: "x", Size: 20, Members: []btf.Member{
		field("new", u32, 0), field("b", &btf.Typedef{Name: "wide", Type: u32}, 4), field("a", u8, 8), field("list", &btf.Array{Type: u32, Nelems: 2}, 12),
	}}
	ms, err := movesBetween(is, was)
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.Repeat([]byte{0xff}, 20)
	ms.apply(out, []byte{1, 9, 2, 3, 4, 5, 6, 7})
	if want := []byte{0, 0, 0, 0, 2, 3, 0, 0, 1, 0, 0, 0, 4, 5, 0, 0, 6, 7, 0, 0}; !bytes.Equal(out, want) {
		t.Errorf("%v, want %v", out, want)
	}
	for name, x := range map[string][2]btf.Type{
		"a narrower integer": {u8, u16}, "a signed one": {s64, s32}, "no array": {u16, &btf.Array{Type: u8, Nelems: 2}},
		"a shorter array": {&btf.Array{Type: u8, Nelems: 2}, &btf.Array{Type: u8, Nelems: 3}}, "a union": {&btf.Union{Size: 4}, &btf.Union{Size: 4}},
		"no struct": {is, u32},
	} {
		if _, err := movesBetween(x[0], x[1]); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if ms, err := movesBetween(was, was); err != nil || len(ms) != 1 || ms[0] != (move{0, 0, 8}) {
		t.Errorf("the same: %v, %v", ms, err)
	}
}
