package tool_test

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/viaduct-net/viaduct/internal/lab/ns"
)

// received reads what a namespace's transport layers have taken in, checksums verified.
func received(t *testing.T, s ns.Space) map[string]uint64 {
	t.Helper()
	raw := map[string]uint64{}
	err := s.Do(func() error {
		v4, err := os.ReadFile("/proc/thread-self/net/snmp")
		if err != nil {
			return err
		}
		lines := strings.Split(strings.TrimSpace(string(v4)), "\n")
		for i := 0; i+1 < len(lines); i += 2 { // a line of names, then one of values
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			for j := 1; j < len(names); j++ {
				raw[names[0]+names[j]], _ = strconv.ParseUint(values[j], 10, 64)
			}
		}
		v6, err := os.ReadFile("/proc/thread-self/net/snmp6")
		if err != nil {
			return err
		}
		for _, line := range strings.Split(string(v6), "\n") {
			if f := strings.Fields(line); len(f) == 2 {
				raw[f[0]], _ = strconv.ParseUint(f[1], 10, 64)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return map[string]uint64{
		"Udp:InDatagrams+NoPorts":     raw["Udp:InDatagrams"] + raw["Udp:NoPorts"],
		"Udp6InDatagrams+Udp6NoPorts": raw["Udp6InDatagrams"] + raw["Udp6NoPorts"],
		"Tcp:InSegs-InCsumErrors":     raw["Tcp:InSegs"] - raw["Tcp:InCsumErrors"],
	}
}
