package ebpf

import (
	"bytes"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/viaduct-net/viaduct/internal/base/action"
	"github.com/viaduct-net/viaduct/internal/base/packet"
	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// newTap makes a tap device; its file is where a VM monitor reads and writes frames, each behind a virtio header.
func newTap(t *testing.T) (string, *os.File) {
	t.Helper()
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: fmt.Sprintf("vdptap%d", serial.Add(1))}, Mode: netlink.TUNTAP_MODE_TAP,
		Flags: netlink.TUNTAP_NO_PI | netlink.TUNTAP_VNET_HDR, NonPersist: true, Queues: 1}
	if err := addUp(tap); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tap.Fds[0].Close() })
	return tap.Name, tap.Fds[0]
}

const vnetLen = 10

// A VM's frame with a partial checksum goes up and down again, then through a flow, to another VM. It
// arrives with a checksum that is what the virtio header says of it.
func TestTap(t *testing.T) {
	opts := testOptions(t)
	opts.Workers = 1
	d := openTest(t, opts)
	name, file := newTap(t)
	tap, err := d.AddPort(name, datapath.VM)
	if err != nil {
		t.Fatal(err)
	}
	other, vm := newTap(t)
	out, err := d.AddPort(other, datapath.VM)
	if err != nil {
		t.Fatal(err)
	}
	as := action.Physical{{Op: action.SetDst, Addr: packet.Addr4([]byte{10, 8, 8, 8})}, {Op: action.SetDstPort, Value: 99}, {Op: action.Output, Port: out.No}}

	whole := testFrame(1)
	v, _ := packet.Parse(whole, 0)
	partial := bytes.Clone(whole)
	pv, _ := packet.Parse(partial, 0)
	packet.FillPartial(&pv)
	header := []byte{1, 0, 0, 0, 0, 0, byte(v.L4), 0, 6, 0} // NEEDS_CSUM
	send := func() {
		t.Helper()
		if _, err := file.Write(append(bytes.Clone(header), partial...)); err != nil {
			t.Fatal(err)
		}
	}
	var want []byte
	rw := packet.Rewriter{Emit: func(_ uint32, _ *action.Action, f []byte) { want = bytes.Clone(f) }}
	if err := rw.Apply(bytes.Clone(whole), packet.GSO{}, as); err != nil {
		t.Fatal(err)
	}
	receive := func() {
		t.Helper()
		if err := vm.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4096)
		n, err := vm.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		got := buf[vnetLen:n]
		gv, reason := packet.Parse(got, 0)
		if reason != 0 {
			t.Fatal(reason)
		}
		state := packet.ChecksumState(&gv)
		if needs := buf[0]&1 != 0; needs != (state == packet.ChecksumPartial) || state == packet.ChecksumWrong {
			t.Errorf("header says %v, checksum is %v", needs, state)
		}
		packet.FillChecksum(&gv)
		if !bytes.Equal(got, want) {
			t.Errorf("got  % x\nwant % x", got, want)
		}
	}

	atomic.StoreInt64(tap.Credit, 1)
	send()
	m := new(datapath.Miss)
	if n, err := d.ReadMisses(0, []*datapath.Miss{m}, 5*time.Second); n != 1 || err != nil || !bytes.Equal(m.Frame, partial) {
		t.Fatalf("%d misses, %v, % x", n, err, m.Frame)
	}
	es := []datapath.Exec{{Frame: m.Frame, GSO: m.GSO, InPort: tap.No, Actions: as}}
	if d.Execute(es); es[0].Err != nil {
		t.Fatal(es[0].Err)
	}
	receive()

	if _, err := d.PutFlows([]datapath.Flow{{Key: testKey(tap.No, whole), Actions: as}}); err != nil {
		t.Fatal(err)
	}
	send()
	receive()
}
