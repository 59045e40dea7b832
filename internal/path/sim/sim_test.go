package sim_test

import (
	"flag"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/viaduct-net/viaduct/internal/base/match"
	"github.com/viaduct-net/viaduct/internal/path/pathtest"
)

var rewrite = flag.Bool("rewrite", false, "replace the outcomes in testdata by what comes out")

func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		t.Run(filepath.Base(f), func(t *testing.T) { pathtest.Script(t, f, *rewrite) })
	}
}

func addr(s string) match.Addr { return match.AddrFrom(netip.MustParseAddr(s)) }
