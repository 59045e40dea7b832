package hostctl

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

func TestReadPcap(t *testing.T) {
	want := [][]byte{[]byte("a first frame of some length"), []byte("and another")}
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for _, f := range want {
		if err := w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Unix(1, 0), CaptureLength: len(f), Length: len(f)}, f); err != nil {
			t.Fatal(err)
		}
	}
	name := filepath.Join(t.TempDir(), "x.pcap")
	write := func(b []byte) {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file.Bytes())
	got, err := readPcap(name)
	if err != nil || len(got) != 2 || !bytes.Equal(got[0], want[0]) || !bytes.Equal(got[1], want[1]) {
		t.Errorf("read %q, %v", got, err)
	}
	write(file.Bytes()[:file.Len()-3])
	if _, err := readPcap(name); err == nil || !strings.Contains(err.Error(), "packet 2") {
		t.Errorf("cut short: %v", err)
	}
	write([]byte("not a capture at all, whatever its name"))
	if _, err := readPcap(name); err == nil || !strings.Contains(err.Error(), "not a pcap file") {
		t.Errorf("not a pcap: %v", err)
	}
	if _, err := readPcap(name + "x"); !os.IsNotExist(err) {
		t.Errorf("missing: %v", err)
	}
}
