// Package disk keeps what an agent holds of the cloud in a file, for the start of the next one while the store is away.
package disk

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/mirror"
	"github.com/viaduct-net/viaduct/internal/topo/model"
	"github.com/viaduct-net/viaduct/internal/topo/store/wire"
	"github.com/viaduct-net/viaduct/internal/topo/view"
)

// File is the name of the snapshot in the agent's state directory.
const File = "topology"

const (
	magic   = "viaduct topology 1"
	sumWord = "sum"
)

// Snapshot is what an agent holds.
type Snapshot struct {
	Host     uuid.UUID // the agent's own
	Name     string    // of the host
	Written  time.Time
	Revision int64 // of the store, as far as the objects are known
	Objects  []model.Object
	Keys     map[string]string // of the store (store.Keys): what is configured for the host, and the like
	Blocks   []string          // what the host has claimed for itself (store.Shared)
	Part     *mirror.KeptPart  // which part of the network Objects are; nil: the whole
	Dead     []uuid.UUID       // hosts that were; of a file of an earlier version none
	Learnt   map[string]string // addresses that other hosts have learnt (store.Shared); of a file of an earlier version none
}

// ErrRefused is a file that cannot be used: damaged, of another version, or of another host.
var ErrRefused = errors.New("the snapshot is refused")

// Write replaces the snapshot in dir, whole or not at all: a crash leaves the old or the new one.
func Write(dir string, s *Snapshot) (err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	path := filepath.Join(dir, File)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			_ = os.Remove(path + ".new")
			return
		}
		err = os.Rename(path+".new", path)
	}()
	w := bufio.NewWriterSize(f, 1<<16)
	sum := crc32.New(castagnoli)
	if err := s.write(io.MultiWriter(w, sum)); err != nil {
		return err
	}
	fmt.Fprintf(w, "%s %08x\n", sumWord, sum.Sum32())
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Sync()
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (s *Snapshot) write(w io.Writer) error {
	fmt.Fprintf(w, "%s\nhost %s %s\nwritten %s\nrevision %d\n", magic, s.Host, strconv.Quote(s.Name), s.Written.UTC().Format(time.RFC3339), s.Revision)
	for k, v := range s.Keys {
		fmt.Fprintf(w, "key %s %s\n", strconv.Quote(k), strconv.Quote(v))
	}
	for _, b := range s.Blocks {
		fmt.Fprintf(w, "block %s\n", strconv.Quote(b))
	}
	for k, v := range s.Learnt {
		fmt.Fprintf(w, "learnt %s %s\n", strconv.Quote(k), strconv.Quote(v))
	}
	for _, id := range s.Dead {
		fmt.Fprintf(w, "dead %s\n", id)
	}
	if s.Part != nil {
		fmt.Fprintln(w, "part")
		for _, b := range s.Part.Bundles {
			fmt.Fprintf(w, "bundle %s %s\n", b.Kind, b.ID)
		}
		for _, t := range s.Part.Things {
			fmt.Fprintf(w, "thing %s %s\n", t.Kind, t.ID)
		}
	}
	for _, o := range s.Objects {
		text, err := wire.Encode(o)
		if err != nil {
			return err
		}
		m := o.GetMeta()
		if _, err := fmt.Fprintf(w, "object %s %s %d %s\n", o.Kind(), m.ID, m.Revision, text); err != nil {
			return err
		}
	}
	return nil
}

// Read reads the snapshot in dir. The error wraps fs.ErrNotExist when there is none, and ErrRefused when it is damaged, or was written for
// a host of another name.
func Read(dir, host string) (*Snapshot, error) {
	path := filepath.Join(dir, File)
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	s, err := parse(b)
	if err == nil && s.Name != host {
		err = fmt.Errorf("it is of host %q, this is host %q", s.Name, host)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", path, ErrRefused, err)
	}
	return s, nil
}

// Missing reports an error of Read that says that there is no snapshot.
func Missing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

func parse(b []byte) (*Snapshot, error) {
	end := bytes.LastIndex(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
	body, last := b[:end+1], string(b[end+1:])
	if !bytes.HasPrefix(b, []byte(magic+"\n")) {
		return nil, errors.New("it is of another version, or no snapshot")
	}
	if last != fmt.Sprintf("%s %08x\n", sumWord, crc32.Checksum(body, castagnoli)) {
		return nil, errors.New("it is damaged: its checksum is another")
	}
	s := &Snapshot{Keys: make(map[string]string), Learnt: make(map[string]string)}
	for line := range strings.Lines(string(body[len(magic)+1:])) {
		word, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if err := s.line(word, rest); err != nil {
			return nil, fmt.Errorf("line %q: %w", word, err)
		}
	}
	return s, nil
}

// line takes one line. Words of a later version are passed over.
func (s *Snapshot) line(word, rest string) (err error) {
	switch word {
	case "host":
		id, name, _ := strings.Cut(rest, " ")
		if s.Host, err = uuid.Parse(id); err == nil {
			s.Name, err = strconv.Unquote(name)
		}
	case "written":
		s.Written, err = time.Parse(time.RFC3339, rest)
	case "revision":
		s.Revision, err = strconv.ParseInt(rest, 10, 64)
	case "key":
		err = pair(s.Keys, rest)
	case "learnt":
		err = pair(s.Learnt, rest)
	case "block":
		var b string
		b, err = strconv.Unquote(rest)
		s.Blocks = append(s.Blocks, b)
	case "dead":
		var id uuid.UUID
		id, err = uuid.Parse(rest)
		s.Dead = append(s.Dead, id)
	case "part":
		s.Part = &mirror.KeptPart{}
	case "bundle", "thing":
		kind, text, _ := strings.Cut(rest, " ")
		var id uuid.UUID
		if id, err = uuid.Parse(text); err != nil || s.Part == nil {
			return cmp.Or(err, errors.New("it is of no part"))
		}
		if word == "bundle" {
			s.Part.Bundles = append(s.Part.Bundles, model.Bundle{Kind: model.BundleKind(kind), ID: id})
		} else if k := view.ParseThingKind(kind); k != 0 {
			s.Part.Things = append(s.Part.Things, view.Thing{Kind: k, ID: id})
		}
	case "object":
		var o model.Object
		if o, err = object(rest); err == nil {
			s.Objects = append(s.Objects, o)
		}
	}
	return err
}

// pair takes a key and its value.
func pair(into map[string]string, rest string) error {
	quoted, err := strconv.QuotedPrefix(rest)
	if err != nil {
		return err
	}
	k, err := strconv.Unquote(quoted)
	if err != nil {
		return err
	}
	into[k], err = strconv.Unquote(strings.TrimPrefix(rest[len(quoted):], " "))
	return err
}

func object(rest string) (model.Object, error) {
	f := strings.SplitN(rest, " ", 4)
	if len(f) != 4 {
		return nil, errors.New("fields are missing")
	}
	id, err := uuid.Parse(f[1])
	rev, err2 := strconv.ParseInt(f[2], 10, 64)
	if err := errors.Join(err, err2); err != nil {
		return nil, err
	}
	return wire.Decode(model.Key{Kind: model.Kind(f[0]), ID: id}, []byte(f[3]), rev)
}
