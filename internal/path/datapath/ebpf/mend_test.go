package ebpf

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// TestMend: whatever somebody takes away of a datapath that is open is put back, and afterwards it outlives its process as before.
func TestMend(t *testing.T) {
	for _, c := range []struct {
		name   string
		clsact bool
		take   func(d *Datapath, l netlink.Link) error
		want   string // in what is said to be mended
	}{
		{"all pins", false, func(d *Datapath, _ netlink.Link) error { return os.RemoveAll(d.opts.PinPath) }, "the directory of pins"},
		{"one pin", false, func(d *Datapath, _ netlink.Link) error {
			return os.Remove(mapDir(d.opts.PinPath, layoutVersion) + "/flows")
		}, "the pin of map flows"},
		{"the settings", false, func(d *Datapath, _ netlink.Link) error { return os.Remove(d.opts.PinPath + "/config") }, "the pin of map config"},
		{"a link's pin", false, func(d *Datapath, _ netlink.Link) error { return os.Remove(d.linkPin(1, ingress)) }, "the pin of the ingress link"},
		{"a link", false, func(d *Datapath, _ netlink.Link) error { return d.ports[1].links[0].Detach() }, "the ingress program"},
		{"the bpffs", false, func(*Datapath, netlink.Link) error {
			for unix.Unmount(bpffs, unix.MNT_DETACH) == nil {
			}
			return nil
		}, "the directory of pins"},
		{"the qdisc", true, func(_ *Datapath, l netlink.Link) error { return netlink.QdiscDel(clsact(l.Attrs().Index)) }, "the ingress program"},
		{"the filter", true, func(_ *Datapath, l netlink.Link) error { return netlink.FilterDel(filter(l.Attrs().Index, ingress)) }, "the ingress program"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, opts := newRig(t), testOptions(t)
			opts.clsact = c.clsact
			in, out := r.NewPort(t), r.NewPort(t)
			d := openTest(t, opts)
			for _, iface := range []string{in, out} {
				if _, err := d.AddPort(iface, datapath.VM); err != nil {
					t.Fatal(err)
				}
			}
			if strings.HasPrefix(c.name, "a link") && d.ports[1].links[0] == nil {
				return // before Linux 6.6 there are none, but the filters below
			}
			if _, err := d.PutFlows(agentFlows(1, 2)); err != nil {
				t.Fatal(err)
			}
			if mended, err := d.Mend(); len(mended) != 0 || err != nil {
				t.Fatalf("of a whole one: %q, %v", mended, err)
			}
			l, err := netlink.LinkByName(in)
			if err != nil {
				t.Fatal(err)
			}
			if err := c.take(d, l); err != nil {
				t.Fatal(err)
			}
			mended, err := d.Mend()
			if err != nil || !slices.ContainsFunc(mended, func(s string) bool { return strings.Contains(s, c.want) }) {
				t.Fatalf("%q, %v; want %q", mended, err, c.want)
			}
			if mended, err := d.Mend(); len(mended) != 0 || err != nil {
				t.Errorf("again: %q, %v", mended, err)
			}
			forwards := func() {
				t.Helper()
				r.Send(t, in, testFrame(1))
				if _, ok := r.Recv(t, out, 5*time.Second); !ok {
					t.Fatal("nothing is forwarded")
				}
			}
			forwards()
			if n := attached(t, in); n != 1 {
				t.Errorf("%d programs are attached", n)
			}
			if _, err := Open(opts); !errors.Is(err, datapath.ErrBusy) {
				t.Fatalf("a second one beside it: %v", err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			forwards()
			if ps, err := openTest(t, opts).Ports(); err != nil || len(ps) != 2 {
				t.Errorf("the next one has adopted %+v, %v", ps, err)
			}
			forwards()
		})
	}
}

// Another process that has made its own in the place of one whose pins were taken away is left alone.
func TestMendAfterAnother(t *testing.T) {
	opts := testOptions(t)
	d := openTest(t, opts)
	if err := os.RemoveAll(d.opts.PinPath); err != nil {
		t.Fatal(err)
	}
	openTest(t, opts)
	if _, err := d.Mend(); !errors.Is(err, datapath.ErrBusy) {
		t.Errorf("%v", err)
	}
}

// An interface goes while there is no agent, and another one has its index when the next agent comes: the port is the new one's.
func TestIndexOfAnother(t *testing.T) {
	r, opts := newRig(t), testOptions(t)
	in, out := r.NewPort(t), r.NewPort(t)
	d := openTest(t, opts)
	for _, iface := range []string{in, out} {
		if _, err := d.AddPort(iface, datapath.VM); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := netlink.LinkByName(in)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkDel(l); err != nil {
		t.Fatal(err)
	}
	other := fmt.Sprintf("x%d", l.Attrs().Index)
	if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: other, Index: l.Attrs().Index}, PeerName: other + "p"}); err != nil {
		t.Fatal(err)
	}
	d = openTest(t, opts)
	ps, err := d.Ports()
	if err != nil || len(ps) != 2 || ps[0].Interface != other {
		t.Fatalf("%+v, %v", ps, err)
	}
	if n := attached(t, other); n != 1 {
		t.Errorf("%d programs are attached", n)
	}
	if mended, err := d.Mend(); len(mended) != 0 || err != nil {
		t.Errorf("%q, %v", mended, err)
	}
	if p, err := d.AddPort(other, datapath.VM); err != nil || p.No != ps[0].No {
		t.Errorf("%+v, %v", p, err)
	}
}
