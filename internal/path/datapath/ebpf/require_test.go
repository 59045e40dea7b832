package ebpf

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// says fails the test unless err is there and has all of words: the thing, and what to do.
func says(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error, want one with %q", words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q\ndoes not say %q", err, w)
		}
	}
}

func TestOldKernel(t *testing.T) {
	for _, release := range []string{"6.0.0", "6.0.19-amd64", "6.0-rc1", "5.15.0-91-generic", "5.10.0-28-cloud-amd64", "4.19", "2.6.32"} {
		says(t, checkRelease(release), release, "6.1 or later", "boot a newer kernel")
	}
	for _, release := range []string{"6.1.0-56-cloud-amd64", "6.1-rc3", "6.1", "6.2+", "6.12.117+deb12-amd64", "6.18.44", "7.0.1", "10.0", "custom"} {
		if err := checkRelease(release); err != nil {
			t.Errorf("%s: %v", release, err)
		}
	}
}

// nobody opens a datapath in a process of an ordinary user with some capabilities, in a bpffs that the user may write to.
func nobody(t *testing.T, caps []uintptr) string {
	t.Helper()
	const uid = 65534
	name := fmt.Sprintf("k%d", serial.Add(1))
	o, err := agentOptions(name).withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	if err := makePinPath(o.PinPath); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := Cleanup(o); err != nil {
			t.Error(err)
		}
	})
	err = errors.Join(os.Chmod(bpffs, 0o755), os.Chmod(filepath.Dir(o.PinPath), 0o755), os.Chown(o.PinPath, uid, uid))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), agentEnv+"="+name)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, AmbientCaps: caps}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(pipe).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait() // killed
	return line
}

func TestUnprivileged(t *testing.T) {
	says(t, errors.New(nobody(t, nil)), os.ErrPermission.Error(), "CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN, CAP_NET_RAW", "run as root")
	says(t, errors.New(nobody(t, []uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN})), "lacks CAP_NET_RAW:")
	if got := nobody(t, []uintptr{unix.CAP_BPF, unix.CAP_PERFMON, unix.CAP_NET_ADMIN, unix.CAP_NET_RAW}); got != "ready: <nil>\n" {
		t.Errorf("with the capabilities: %s", got)
	}
}

func TestNoBPFFS(t *testing.T) {
	opts := testOptions(t)
	opts.PinPath = filepath.Join(t.TempDir(), "pins")
	_, err := Open(opts)
	says(t, err, opts.PinPath, "not in a bpffs", "mount -t bpf")

	// Where it is not mounted, it is mounted.
	for unix.Unmount(bpffs, unix.MNT_DETACH) == nil {
	}
	openTest(t, testOptions(t))
	if !isBPFFS(bpffs) {
		t.Errorf("nothing is mounted on %s", bpffs)
	}
}

func TestForeignProgram(t *testing.T) {
	for _, clsact := range []bool{false, true} {
		t.Run(fmt.Sprintf("clsact=%v", clsact), func(t *testing.T) {
			r, opts := newRig(t), testOptions(t)
			opts.clsact = clsact
			iface := r.NewPort(t)
			first, second := openTest(t, opts), openTest(t, testOptions(t))
			if _, err := first.AddPort(iface, datapath.VM); err != nil {
				t.Fatal(err)
			}
			_, err := second.AddPort(iface, datapath.VM)
			says(t, err, iface, "ingress", "viaduct_ingress", "first (")
			if !errors.Is(err, datapath.ErrBusy) {
				t.Errorf("%v", err)
			}
			if n := attached(t, iface); n != 1 {
				t.Errorf("%d programs", n)
			}
			if ps, err := second.Ports(); err != nil || len(ps) != 0 {
				t.Errorf("%v, %v", ps, err)
			}
		})
	}
}

// A qdisc of somebody else's is no obstacle, and stays.
func TestForeignQdisc(t *testing.T) {
	r, opts := newRig(t), testOptions(t)
	opts.clsact = true
	iface := r.NewPort(t)
	l, err := netlink.LinkByName(iface)
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.QdiscAdd(clsact(l.Attrs().Index)); err != nil {
		t.Fatal(err)
	}
	d := openTest(t, opts)
	p, err := d.AddPort(iface, datapath.VM)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.DelPort(p.No); err != nil {
		t.Fatal(err)
	}
	if n := attached(t, iface); n != 0 {
		t.Errorf("%d filters left", n)
	}
	qs, err := netlink.QdiscList(l)
	if err != nil || !slices.ContainsFunc(qs, func(q netlink.Qdisc) bool { return q.Type() == "clsact" }) {
		t.Errorf("qdiscs %v, %v", qs, err)
	}
}

// Maps that cannot be read stay as they are, until they are cleaned up.
func TestOtherLayout(t *testing.T) {
	for _, clsact := range []bool{false, true} {
		t.Run(fmt.Sprintf("clsact=%v", clsact), func(t *testing.T) {
			r, opts := newRig(t), testOptions(t)
			opts.clsact = clsact
			iface := r.NewPort(t)
			d := openTest(t, opts)
			if _, err := d.AddPort(iface, datapath.VM); err != nil {
				t.Fatal(err)
			}
			d.settings.Version = 99
			if err := d.writeSettings(); err != nil {
				t.Fatal(err)
			}
			if err := d.Close(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				_, err := Open(opts)
				says(t, err, "a newer agent", "layout 99", "viaduct agent --cleanup --name "+opts.Name)
			}
			if n := attached(t, iface); n != 1 {
				t.Errorf("%d programs attached", n)
			}
			if err := Cleanup(opts); err != nil {
				t.Fatal(err)
			}
			if n := attached(t, iface); n != 0 {
				t.Errorf("%d programs left", n)
			}
			openTest(t, opts)
		})
	}
}

// An interface is free as soon as its port is deleted.
func TestFreeAtOnce(t *testing.T) {
	r := newRig(t)
	iface := r.NewPort(t)
	ds := [2]*Datapath{openTest(t, testOptions(t)), openTest(t, testOptions(t))}
	for i := range 20 {
		p, err := ds[i%2].AddPort(iface, datapath.VM)
		if err != nil {
			t.Fatal(err)
		}
		if err := ds[i%2].DelPort(p.No); err != nil {
			t.Fatal(err)
		}
		if n := attached(t, iface); n != 0 {
			t.Fatalf("%d programs left", n)
		}
	}
}
