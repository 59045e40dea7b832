package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update-man", false, "write the manual pages of the commands to docs/man")

const manDir = "../../docs/man"

// TestManPages holds the manual pages that are checked in against the commands. To write them anew:
//
//	go test ./cmd/viaduct -run TestManPages -update-man
func TestManPages(t *testing.T) {
	dir := t.TempDir()
	root := command()
	walk(root, func(c *cobra.Command) {
		c.DisableAutoGenTag = true
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "host" && f.DefValue != "" || f.Name == "workers" {
				f.DefValue = "" // this machine's
			}
		})
	})
	date := time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "Viaduct", Manual: "Viaduct", Date: &date}, dir); err != nil {
		t.Fatal(err)
	}
	want := read(t, dir)
	if *update {
		for name := range read(t, manDir) {
			if want[name] == "" {
				if err := os.Remove(filepath.Join(manDir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
		for name, text := range want {
			if err := os.WriteFile(filepath.Join(manDir, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	have := read(t, manDir)
	for name, text := range want {
		if have[name] != text {
			t.Errorf("docs/man/%s is not fresh: go test ./cmd/viaduct -run TestManPages -update-man", name)
		}
	}
	for name := range have {
		if want[name] == "" {
			t.Errorf("docs/man/%s is of no command any more", name)
		}
	}
}

// read reads the pages of section 1.
func read(t *testing.T, dir string) map[string]string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil {
		t.Fatal(err)
	}
	pages := make(map[string]string)
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		// Trailing blanks are the generator's, and editors take them off.
		lines := strings.Split(string(b), "\n")
		for i := range lines {
			lines[i] = strings.TrimRight(lines[i], " \t")
		}
		pages[filepath.Base(f)] = strings.Join(lines, "\n")
	}
	return pages
}
