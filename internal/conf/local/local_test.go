package local

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var known = []string{"etcd", "host", "run_dir", "name"}

func write(t *testing.T, files map[string]string) (file string) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "conf.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "viaduct.yaml")
}

func TestOrder(t *testing.T) {
	file := write(t, map[string]string{
		"viaduct.yaml":     "# comment\nagent:\n  etcd: [http://a:1, http://b:2]\n  host: 12\n  run_dir: /run/a\n  name: main\nserver: {listen: x}\n",
		"conf.d/10.yaml":   "agent: {run_dir: /run/b, host: ten}\n",
		"conf.d/20.yaml":   "agent:\n  host: twenty\n",
		"conf.d/30.yaml":   "",
		"conf.d/notes.txt": "agent: {nonsense: 1}",
	})
	got, err := Read(file, true, "agent", known, []string{"VIADUCT_AGENT_RUN_DIR=/run/e", "VIADUCT_SERVER_LISTEN=y", "VIADUCT_SERVER=z", "HOME=/"})
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(file)
	want := map[string]Value{
		"etcd":    {"http://a:1,http://b:2", file + ":3:3"},
		"name":    {"main", file + ":6:3"},
		"host":    {"twenty", dir + "/conf.d/20.yaml:2:3"},
		"run_dir": {"/run/e", "VIADUCT_AGENT_RUN_DIR"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestAbsent(t *testing.T) {
	file := filepath.Join(t.TempDir(), "viaduct.yaml")
	if got, err := Read(file, false, "agent", known, nil); err != nil || len(got) != 0 {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := Read(file, true, "agent", known, nil); err == nil || !strings.Contains(err.Error(), file) {
		t.Error(err)
	}
}

func TestBadInput(t *testing.T) {
	for text, want := range map[string]string{
		"agent: {ectd: x}":              `viaduct.yaml:1:9: agent: no setting "ectd", did you mean "etcd"?`,
		"agent: {zzzzzzz: x}":           `no setting "zzzzzzz": there are etcd, host, name, run_dir`,
		"agnet: {}":                     `:1:1: no section "agnet", did you mean "agent"?`,
		"just text":                     "want sections",
		"agent: 5":                      "agent: want settings",
		"agent: {etcd: {a: b}}":         "agent.etcd: want a text, a number or a list of them",
		"agent: {etcd: [[a]]}":          "agent.etcd: want",
		"agent: {host: a, host: b}":     "viaduct.yaml:1:",
		"agent: [":                      "viaduct.yaml:1:",
		"server: {whatever: 1}":         "",
		"agent: {ectd: x}\nservre: {}":  "did you mean \"server\"", // all that is wrong
		"agent:\n  host: h\nserver:\n ": "",
	} {
		_, err := Read(write(t, map[string]string{"viaduct.yaml": text}), true, "agent", known, nil)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	_, err := Read("/nowhere/viaduct.yaml", false, "agent", known, []string{"VIADUCT_AGENT_ECTD=x"})
	if err == nil || !strings.Contains(err.Error(), `no variable "VIADUCT_AGENT_ECTD", did you mean "VIADUCT_AGENT_ETCD"?`) {
		t.Error(err)
	}
}
