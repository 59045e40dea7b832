package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// ovn is OVN's northbound and southbound databases with ovn-northd, in a directory of their own, without any datapath.
type ovn struct {
	t       *testing.T
	dir     string
	tracers map[string]*tracer // by state of connections
}

// startOVN starts the three, which end with the test.
func startOVN(t *testing.T) *ovn {
	o := &ovn{t: t, dir: t.TempDir(), tracers: make(map[string]*tracer)}
	for _, db := range []string{"nb", "sb"} {
		o.run("ovsdb-tool", "create", filepath.Join(o.dir, db+".db"), "/usr/share/ovn/ovn-"+db+".ovsschema")
	}
	o.daemon("ovsdb-server", "--remote=punix:"+o.sock(), "--unixctl="+o.dir+"/db.ctl", o.dir+"/nb.db", o.dir+"/sb.db")
	for i := 0; ; i++ {
		if _, err := os.Stat(o.sock()); err == nil {
			break
		} else if i == 100 {
			t.Fatal("ovsdb-server does not come up")
		}
		time.Sleep(50 * time.Millisecond)
	}
	o.daemon("ovn-northd", "--ovnnb-db=unix:"+o.sock(), "--ovnsb-db=unix:"+o.sock(), "--unixctl="+o.dir+"/northd.ctl")
	o.nbctl("init")
	o.nbctl("--", "set", "NB_Global", ".", "options:ignore_lsp_down=true") // no ovn-controller brings a port up here
	o.run("ovn-sbctl", "--db=unix:"+o.sock(), "--timeout=30", "chassis-add", "hv1", "geneve", "127.0.0.1")
	t.Cleanup(o.stopTrace) // before the databases: it does not outlive them
	return o
}

func (o *ovn) sock() string { return filepath.Join(o.dir, "db.sock") }

func (o *ovn) env() []string { return append(os.Environ(), "OVN_RUNDIR="+o.dir, "OVS_RUNDIR="+o.dir) }

func (o *ovn) run(name string, args ...string) string {
	o.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = o.env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		o.t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func (o *ovn) daemon(name string, args ...string) {
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, name, append(args, "--no-chdir", "--log-file="+filepath.Join(o.dir, name+".log"), "-vconsole:off")...)
	cmd.Env = o.env()
	if err := cmd.Start(); err != nil {
		o.t.Fatal(err)
	}
	o.t.Cleanup(func() {
		cancel()
		_ = cmd.Wait() // killed
	})
}

func (o *ovn) nbctl(args ...string) {
	o.t.Helper()
	o.run("ovn-nbctl", append([]string{"--db=unix:" + o.sock(), "--timeout=120"}, args...)...)
}

// load replaces what there is by networks, and starts ovn-trace on them.
func (o *ovn) load(nets []*network) {
	o.t.Helper()
	o.stopTrace()
	o.run("ovn-nbctl", "--db=unix:"+o.sock(), "--timeout=120", "--", "--all", "destroy", "Logical_Switch", "--", "--all", "destroy", "Logical_Router")
	for _, n := range nets {
		o.nbctl(commands(n)...)
	}
	o.nbctl("--wait=sb", "sync")
	for _, ct := range ctStates {
		o.tracers[ct] = o.startTracer(ct)
	}
}

// ctStates are those in which a packet may be. ovn-trace is told when it starts.
var ctStates = []string{"new", "est", "est,rpl", "rel,rpl"}

// ctLooks bounds how often the packets of one load may look into connection tracking: each look takes one of the states
// that ovn-trace was given.
const ctLooks = 20000

// tracer is a running ovn-trace.
type tracer struct {
	ctl  string
	conn net.Conn
	dec  *json.Decoder
}

// startTracer starts one that reads the database, once.
func (o *ovn) startTracer(ct string) *tracer {
	name := filepath.Join(o.dir, strings.ReplaceAll(ct, ",", "-"))
	args := []string{"--db=unix:" + o.sock(), "--detach", "--no-chdir", "--unixctl=" + name + ".ctl", "--pidfile=" + name + ".pid",
		"--log-file=" + name + ".log", "-vconsole:off"}
	for range ctLooks {
		args = append(args, "--ct="+ct)
	}
	o.run("ovn-trace", args...)
	c, err := net.Dial("unix", name+".ctl")
	if err != nil {
		o.t.Fatal(err)
	}
	return &tracer{ctl: name + ".ctl", conn: c, dec: json.NewDecoder(c)}
}

// stopTrace ends all of them.
func (o *ovn) stopTrace() {
	for ct, x := range o.tracers {
		delete(o.tracers, ct)
		_, err := x.call("exit")
		x.conn.Close()
		if err != nil {
			o.t.Errorf("ovn-trace does not stop: %v", err)
		}
		for i := 0; ; i++ {
			if _, err := os.Stat(x.ctl); err != nil {
				break
			} else if i == 100 {
				o.t.Fatal("ovn-trace does not end")
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
}

// call is a request (JSON-RPC 1.0).
func (x *tracer) call(method string, params ...string) (string, error) {
	if params == nil {
		params = []string{}
	}
	if err := json.NewEncoder(x.conn).Encode(map[string]any{"id": 0, "method": method, "params": params}); err != nil {
		return "", err
	}
	var answer struct {
		Result string
		Error  any
	}
	if err := x.dec.Decode(&answer); err != nil {
		return "", err
	}
	if answer.Error != nil {
		return "", fmt.Errorf("%v", answer.Error)
	}
	return answer.Result, nil
}

// decide has ovn-trace follow a packet.
func (o *ovn) decide(p *pkt) (verdict, string) {
	text, err := o.tracers[p.ct].call("trace", "--minimal", p.at.on.name, p.expr())
	if err != nil {
		o.t.Fatalf("ovn-trace %s: %v", p, err)
	}
	if strings.Contains(text, "default (use --ct") {
		o.t.Fatal("ovn-trace has no states of connections left: ctLooks is too small")
	}
	v, err := parseTrace(p, text)
	if err != nil {
		o.t.Fatalf("ovn-trace %s: %v in\n%s", p, err, text)
	}
	return v, text
}
