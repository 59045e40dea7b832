// Package labtest helps the tests of laboratories.
package labtest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
)

// NeedRoot fails a test that is not run by root: skipping it would look like success.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("this test makes network namespaces and needs root")
	}
}

// Restored checks, when the test has ended, that the machine's links are what they are now, and that of all laboratories
// and namespaces whose names begin with prefix nothing is left. Call it first. Others may come and
// go meanwhile: tests of several packages run at once.
func Restored(t testing.TB, prefix string) {
	t.Helper()
	before := machine(t, prefix)
	t.Cleanup(func() {
		if d := cmp.Diff(before, machine(t, prefix)); d != "" {
			t.Errorf("the machine is not as it was:\n%s", d)
		}
	})
}

func machine(t testing.TB, prefix string) (all []string) {
	t.Helper()
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		all = append(all, "link "+l.Attrs().Name)
	}
	for _, dir := range []string{"/run/netns", "/run/viaduct/lab", "/sys/fs/bpf/viaduct"} {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), prefix) {
				all = append(all, filepath.Join(dir, e.Name()))
			}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, "/"+prefix) {
			all = append(all, line)
		}
	}
	slices.Sort(all)
	return all
}
