package pathtest

import (
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/viaduct-net/viaduct/internal/path/sim"
)

// Script runs a .txtar file: the file "network" is a topology (see Parse), each further file is
// named by a title and holds the packet on a line that starts with >, then its
// whole outcome; after >+ ports that it needs are leased, and the connections that it begins are committed, so that later packets may answer it, or follow it as fragments. A line that starts with
// - takes the named rule of a security group away first. With rewrite the outcomes are replaced by what came out.
func Script(t *testing.T, path string, rewrite bool) {
	t.Helper()
	ar, err := txtar.ParseFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(ar.Files) < 2 || ar.Files[0].Name != "network" {
		t.Fatalf("%s: want the file network and then packets", path)
	}
	topo, err := Parse(string(ar.Files[0].Data))
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	for i := range ar.Files[1:] {
		f := &ar.Files[1+i]
		line, want, _ := strings.Cut(string(f.Data), "\n")
		rule, packet, _ := strings.Cut(line, ">")
		if name, ok := strings.CutPrefix(rule, "-"); ok {
			topo.Revoke(strings.TrimSpace(name))
		}
		packet, commit := strings.CutPrefix(packet, "+")
		in, err := topo.Inject(packet)
		if err != nil {
			t.Fatalf("%s: %s: %v", path, f.Name, err)
		}
		var c sim.Context
		if commit {
			topo.State.Remember(&in)
			if topo.Simulate(&c, &in); c.Result == sim.ResultNotYet {
				topo.State.Lease(&c) // the ports that it waits for, if it does
			}
		}
		got := topo.Outcome(&in, true) + "\n"
		if commit {
			topo.Simulate(&c, &in)
			topo.State.Commit(&c)
		}
		if rewrite {
			f.Data = []byte(line + "\n" + got)
		} else if got != want {
			t.Errorf("%s: %s:\n%s\ngot:\n%swant:\n%s", path, f.Name, line, got, want)
		}
	}
	if rewrite {
		if err := os.WriteFile(path, txtar.Format(ar), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}
