package ebpf

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"
)

func TestVerifier(t *testing.T) {
	spec, err := loadBpf()
	if err != nil {
		t.Fatal(err)
	}
	c, err := ebpf.NewCollection(spec)
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		t.Fatalf("%-60v", ve)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
