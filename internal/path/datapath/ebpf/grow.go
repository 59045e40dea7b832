package ebpf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cilium/ebpf"
)

// growTables puts larger tables of flows, with the same flows in them, in place of pinned ones that are smaller than what spec asks for.
// Packets are switched by the earlier agent's program, which has the old tables, until this one's takes its place; what it counts
// meanwhile is lost.
func growTables(spec *ebpf.CollectionSpec, pinPath string) error {
	// First what flows refer to: an Open that fails in between leaves nothing that refers to nothing.
	for _, name := range []string{bpfMapWideSteps, bpfMapFlows} {
		if err := growTable(spec.Maps[name], filepath.Join(pinPath, name)); err != nil {
			return fmt.Errorf("a larger table %s: %w", name, err)
		}
	}
	return nil
}

func growTable(spec *ebpf.MapSpec, path string) error {
	old, err := ebpf.LoadPinnedMap(path, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer old.Close()
	if old.MaxEntries() >= spec.MaxEntries {
		return nil
	}
	larger, err := ebpf.NewMap(spec)
	if err != nil {
		return err
	}
	defer larger.Close()
	key, value := make([]byte, spec.KeySize), make([]byte, spec.ValueSize)
	all := old.Iterate()
	for all.Next(&key, &value) {
		if err := larger.Put(key, value); err != nil {
			return err
		}
	}
	if err := all.Err(); err != nil {
		return err
	}
	beside := path + "_larger"
	if err := os.Remove(beside); err != nil && !errors.Is(err, os.ErrNotExist) { // of an Open that did not come to its end
		return err
	}
	if err := larger.Pin(beside); err != nil {
		return err
	}
	return os.Rename(beside, path) // there is a table at any time
}
