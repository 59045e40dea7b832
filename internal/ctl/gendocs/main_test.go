package main

import (
	"os"
	"path/filepath"
	"testing"
)

// What is checked in is what the schema says now.
func TestDocumentationIsFresh(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "man"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := run(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"conf.md", "man/viaduct-conf.5", "man/viaduct.yaml.5"} {
		want, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join("../../../docs", name)); err != nil || string(got) != string(want) {
			t.Errorf("docs/%s is not fresh (%v): go generate ./internal/conf", name, err)
		}
	}
}
