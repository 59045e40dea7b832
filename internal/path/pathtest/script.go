package pathtest

import (
	"os"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// Script runs a .txtar file: the file "network" is a topology (see Parse), each further file is
// named by a title and holds the packet on a line that starts with >, then its
// whole outcome. With rewrite the outcomes are replaced by what came out.
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
		in, err := topo.Inject(strings.TrimPrefix(line, ">"))
		if err != nil {
			t.Fatalf("%s: %s: %v", path, f.Name, err)
		}
		got := topo.Outcome(&in, true) + "\n"
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
