package sim_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

const networkDocument = "../../../docs/network.md"

// TestNetworkDocument: docs/network.md shows the traces that the scripts have, and names tests that exist.
func TestNetworkDocument(t *testing.T) {
	b, err := os.ReadFile(networkDocument)
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	scripts := map[string]map[string]string{} // traces by file and title
	shown := regexp.MustCompile("(?s)```trace (\\S+): ([^\n]+)\n(.*?)```")
	n := 0
	now := shown.ReplaceAllStringFunc(text, func(block string) string {
		n++
		m := shown.FindStringSubmatch(block)
		traces := scripts[m[1]]
		if traces == nil {
			traces = readTraces(t, m[1])
			scripts[m[1]] = traces
		}
		trace, ok := traces[m[2]]
		if !ok {
			t.Errorf("%s has no %q", m[1], m[2])
		}
		return "```trace " + m[1] + ": " + m[2] + "\n" + trace + "```"
	})
	if n < 40 {
		t.Errorf("%d traces: is the form of the document another one?", n)
	}
	switch {
	case now == text:
	case *rewrite:
		if err := os.WriteFile(networkDocument, []byte(now), 0o644); err != nil {
			t.Fatal(err)
		}
	default:
		t.Error("docs/network.md shows traces that are not those of the scripts: go test ./internal/path/sim -run TestNetworkDocument -args -rewrite")
	}
	testsExist(t, text)
}

// readTraces gives what each case of a script enters with, and its trace.
func readTraces(t *testing.T, file string) map[string]string {
	t.Helper()
	ar, err := txtar.ParseFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	traces := map[string]string{}
	for _, f := range ar.Files[1:] {
		packet, rest, _ := strings.Cut(string(f.Data), "\n")
		_, trace, _ := strings.Cut(rest, "\npacket\n")
		trace, _, _ = strings.Cut(trace, "generated 0:")
		_, packet, _ = strings.Cut(packet, ">")
		traces[f.Name] = strings.TrimSpace(strings.TrimPrefix(packet, "+")) + "\n" + strings.TrimSpace(trace) + "\n"
	}
	return traces
}

// testsExist looks for the tests that the document names: a folder in backquotes, and then names.
func testsExist(t *testing.T, text string) {
	t.Helper()
	text = regexp.MustCompile("(?s)```.*?```").ReplaceAllString(text, "")
	named := regexp.MustCompile("`([a-z/]+)`((?:\\s+Test\\w+,?)+)")
	found := 0
	for _, m := range named.FindAllStringSubmatch(text, -1) {
		dir := filepath.Join("../..", m[1]) // of internal
		if strings.HasPrefix(m[1], "test/") {
			dir = filepath.Join("../../..", m[1])
		}
		sources := ""
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			b, err := os.ReadFile(f)
			if err != nil {
				t.Fatal(err)
			}
			sources += string(b)
		}
		for _, name := range regexp.MustCompile(`Test\w+`).FindAllString(m[2], -1) {
			found++
			if !strings.Contains(sources, "func "+name+"(") {
				t.Errorf("docs/network.md names %s in %s, where there is none", name, m[1])
			}
		}
	}
	if mentioned := len(regexp.MustCompile(`\bTest[A-Z]\w+`).FindAllString(text, -1)); found < mentioned-3 {
		t.Errorf("%d of %d tests that the document names were looked for", found, mentioned)
	}
}
