package logs

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
)

func TestLevelsChange(t *testing.T) {
	var out bytes.Buffer
	l := New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelError}), slog.LevelInfo)
	process, store, flows := l.For(""), l.For("store").With("a", 1), l.For("flows").WithGroup("g")
	say := func(want string) {
		t.Helper()
		out.Reset()
		for _, log := range []*slog.Logger{process, store, flows} {
			log.Debug("d")
			log.Warn("w")
			log.Error("e")
		}
		var got []string
		for line := range strings.Lines(out.String()) {
			who := "process"
			for _, name := range []string{"store a=1", "flows"} {
				if strings.HasSuffix(strings.TrimSpace(line), "subsystem="+name) {
					who = name[:5]
				}
			}
			got = append(got, who+":"+line[strings.Index(line, "msg=")+4:][:1])
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("got %s, want %s", g, want)
		}
	}
	say("process:w process:e store:w store:e flows:w flows:e")
	l.SetLevels(slog.LevelError, map[string]slog.Level{"store": slog.LevelDebug, "flows": Off})
	say("process:e store:d store:w store:e")
	l.SetLevels(Off, nil)
	say("")
	if l.For("new").Enabled(t.Context(), slog.LevelError) {
		t.Error("a new subsystem has an old level")
	}
}
