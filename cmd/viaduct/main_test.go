package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"viaduct": main})
}

// TestScript runs the command line against real servers. Besides the usual commands a script
// has "server", which starts one, waits until it is ready and sets FIRST and, where it also speaks TLS, SECOND to its addresses, "stop", which ends it, and
// "code N command...", which wants that exit code.
func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Values[serverKey{}] = new(*running)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"server": startServer,
			"stop":   stopServer,
			"code":   wantCode,
		},
	})
}

type running struct{ cmd *exec.Cmd }

// serverKey is under what a script keeps its server.
type serverKey struct{}

// startServer waits for the notification that systemd would get.
func startServer(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.Getenv("WORK")
	socket := filepath.Join(dir, "notify.sock")
	os.Remove(socket)
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	ts.Check(err)
	defer notify.Close()
	api := "unix://" + filepath.Join(dir, "api.sock")
	ts.Setenv("VIADUCT_SERVER", api)
	ts.Setenv("FIRST", api)
	cmd := exec.Command("viaduct", append([]string{
		"server", "--listen", api, "--data-dir", filepath.Join(dir, "data"), "--etcd-listen", "http://127.0.0.1:0",
	}, args...)...)
	// testscript puts the program's directory in front of its own PATH.
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+socket)
	log, err := os.Create(filepath.Join(dir, "server.log"))
	ts.Check(err)
	defer log.Close()
	cmd.Stderr = log
	cmd.Stderr, cmd.Dir = log, dir
	ts.Check(cmd.Start())
	r := &running{cmd}
	*server(ts) = r
	ts.Defer(func() { r.stop() })
	ts.Check(notify.SetReadDeadline(time.Now().Add(30 * time.Second)))
	buf := make([]byte, 256)
	n, err := notify.Read(buf)
	if err != nil || !strings.HasPrefix(string(buf[:n]), "READY=1\n") {
		r.stop()
		ts.Fatalf("server is not ready: %q, %v\n%s", buf[:n], err, ts.ReadFile("server.log"))
	}
	if second := regexp.MustCompile(`https://[^] "]+`).FindString(ts.ReadFile("server.log")); second != "" {
		ts.Setenv("SECOND", second)
	}
}

func server(ts *testscript.TestScript) **running {
	return ts.Value(serverKey{}).(**running)
}

func stopServer(ts *testscript.TestScript, _ bool, _ []string) {
	if err := (*server(ts)).stop(); err != nil {
		ts.Fatalf("server ended with %v\n%s", err, ts.ReadFile("server.log"))
	}
}

// stop asks the server to end and waits until it has.
func (r *running) stop() error {
	if r.cmd.ProcessState != nil {
		return nil
	}
	if err := r.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return r.cmd.Wait()
}

func wantCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N command [args...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := err.(*exec.ExitError)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}
