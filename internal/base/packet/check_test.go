package packet

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/viaduct-net/viaduct/internal/base/action"
)

// TestCheckForetellsApply: what Check says of a key happens to the packet.
func TestCheckForetellsApply(t *testing.T) {
	seen := map[bool]int{}
	rapid.Check(t, func(rt *rapid.T) {
		f := genFrame(rt)
		v := mustParse(rt, f)
		if v.Is4() && rapid.Bool().Draw(rt, "fragment") {
			f[v.L3+6] = 0x20
			f[v.L3+7] = rapid.SampledFrom([]byte{0, 1}).Draw(rt, "offset")
		}
		if rapid.IntRange(0, 9).Draw(rt, "arp") == 0 {
			f = BuildARPRequest(nil, macA, ip4A, ip4B)
		}
		v = mustParse(rt, f)
		if v.Is4() {
			f[v.L3+8] = 64
		} else if v.Is6() {
			f[v.L3+7] = 64
		}
		as := make(action.Physical, rapid.IntRange(1, 3).Draw(rt, "n"))
		for i := range as {
			as[i] = action.Action{Op: action.Op(rapid.IntRange(0, 15).Draw(rt, "op")), Value: 5, Addr: genAddr(rt, rapid.Bool().Draw(rt, "v6"), "addr")}
		}
		err := Check(&v.Key, as)
		_, applied := apply(f, GSO{}, as...)
		if errors.Is(err, ErrRewrite) != errors.Is(applied, ErrRewrite) || applied != nil && !errors.Is(applied, ErrRewrite) {
			rt.Fatalf("Check: %v, Apply: %v: %+v %+v", err, applied, v.Key, as)
		}
		seen[err == nil]++
	})
	if seen[true] == 0 || seen[false] == 0 {
		t.Errorf("one-sided: %v", seen)
	}
}

func TestCheckTags(t *testing.T) {
	pop, push := action.Action{Op: action.PopVLAN}, action.Action{Op: action.PushVLAN}
	double := cat(udp4()[:12], []byte{0x88, 0xa8, 0, 5, 0x81, 0, 0, 6}, udp4()[12:])
	for _, c := range []struct {
		frame []byte
		as    action.Physical
		ok    bool
	}{
		{udp4(), action.Physical{pop}, false},
		{udp4(), action.Physical{push, pop}, true},
		{udp4(), action.Physical{push, pop, pop}, false},
		{double, action.Physical{pop, pop}, true},
		{double, action.Physical{pop, {Op: action.DecTTL}}, false}, // opaque when it came in
	} {
		v := mustParse(t, c.frame)
		_, applied := apply(c.frame, GSO{}, c.as...)
		if err := Check(&v.Key, c.as); (err == nil) != c.ok || (applied == nil) != c.ok {
			t.Errorf("%v: Check %v, Apply %v", c.as, err, applied)
		}
	}
}
