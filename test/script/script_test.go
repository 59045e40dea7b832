// Package script holds whole-cloud stories: what operators, VMs and faults do, and all that comes of it, over the deterministic simulator
// (test/sim). `go test ./test/script -update` writes down what comes of them now.
package script

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/viaduct-net/viaduct/test/sim"
)

var update = flag.Bool("update", false, "rewrite what is expected")

// Each story is the comment of an archive; its file "want" is what comes of it.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no stories", err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			a, err := txtar.ParseFile(name)
			if err != nil {
				t.Fatal(err)
			}
			got, err := sim.Script(string(a.Comment))
			if err != nil {
				t.Fatalf("%v\n%s", err, got)
			}
			if *update {
				a.Files = []txtar.File{{Name: "want", Data: []byte(got)}}
				if err := os.WriteFile(name, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if len(a.Files) != 1 || string(a.Files[0].Data) != got {
				t.Errorf("it is otherwise now (-update to accept):\n%s", got)
			}
		})
	}
}
