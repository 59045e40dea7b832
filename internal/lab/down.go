package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Down ends the laboratory's processes, whoever started them in its namespaces, removes everything that
// it made, and leaves the machine as it was. It goes on after errors; as
// long as there are any, the manifest stays, so that it can be tried again. A laboratory that is gone is no error; of one that
// somebody else is changing, who does not come to an end, nothing is removed.
func (l *Lab) Down() error {
	err := l.change(context.Background(), l.down)
	if errors.Is(err, noLab(l.Name)) {
		return nil
	}
	return err
}

func (l *Lab) down() error {
	var errs []error
	for _, s := range l.spaces() {
		errs = append(errs, s.Kill(10*time.Second))
	}
	for _, s := range l.spaces() {
		errs = append(errs, s.Delete())
	}
	for _, h := range l.Hosts {
		// The manifest is a file: it shall not lead elsewhere.
		if filepath.Dir(h.Pins) != pinRoot || strings.Contains(filepath.Base(h.Pins), "..") {
			errs = append(errs, fmt.Errorf("host %s: pins %s are not below %s: left alone", h.Name, h.Pins, pinRoot))
			continue
		}
		errs = append(errs, os.RemoveAll(h.Pins))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("laboratory %s: %w", l.Name, err)
	}
	unlock, err := lockMachine()
	if err != nil {
		return err
	}
	defer unlock()
	if err := os.RemoveAll(l.dir); err != nil {
		return err
	}
	if others, err := list(filepath.Dir(l.dir)); err != nil || len(others) > 0 {
		return err // what is left is theirs now
	}
	for _, d := range slices.Backward(l.Made) {
		_ = os.Remove(d) // stays while anybody else uses it
	}
	if l.Mounted {
		return unmountBPFFS()
	}
	return nil
}
