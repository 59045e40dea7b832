package netns

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/viaduct-net/viaduct/internal/path/datapath"
)

// Somebody deletes the datapath under the agent, as Open vSwitch's daemon does when it makes its first bridge: the agent ends and says
// why, and the next one, which its supervisor starts, makes it anew.
func TestDatapathDeleted(t *testing.T) {
	if os.Getenv("VIADUCT_DRIVER") != "ovs" {
		t.Skip("only Open vSwitch's module lets others delete the datapath; make test-vm runs this")
	}
	l := twoSubnets(t)
	alice, h := space(t, l, "alice"), &l.Hosts[0]
	ping(t, alice, "10.0.2.10")
	names, err := command(h.Space, "ovs-dpctl", "dump-dps")
	if err != nil {
		t.Fatal(err)
	}
	for name := range strings.FieldsSeq(names) {
		if out, err := command(h.Space, "ovs-dpctl", "del-dp", name); err != nil {
			t.Fatalf("%s: %v\n%s", name, err, out)
		}
	}
	eventually(t, "the agent ends", func(context.Context) error {
		if err := syscall.Kill(h.PID, 0); !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("process %d is there: %v", h.PID, err)
		}
		return nil
	})
	log, err := os.ReadFile(h.Log)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), datapath.ErrGone.Error()) {
		t.Errorf("the agent does not say why:\n%s", log)
	}
	if err := l.StartAgent(t.Context(), h); err != nil {
		t.Fatal(err)
	}
	ping(t, alice, "10.0.2.10")
}
