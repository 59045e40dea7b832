package ebpf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"
)

// moves are what takes a value of one type to another, by the names of its fields: byte ranges to be copied.
type moves []move

type move struct{ dst, src, n uint32 }

func (ms moves) apply(dst, src []byte) {
	clear(dst)
	for _, m := range ms {
		copy(dst[m.dst:m.dst+m.n], src[m.src:m.src+m.n])
	}
}

// movesBetween compares two types. Fields that dst has and src has not become zero, those that only src has are left out. It fails when
// a field that both have cannot hold what it held.
func movesBetween(dst, src btf.Type) (moves, error) {
	var ms moves
	err := ms.add(dst, src, 0, 0)
	return ms.joined(), err
}

func (ms *moves) add(dst, src btf.Type, to, from uint32) error {
	dst, src = btf.UnderlyingType(dst), btf.UnderlyingType(src)
	no := func() error { return fmt.Errorf("%v is no %v", src, dst) }
	switch d := dst.(type) {
	case *btf.Int, *btf.Enum:
		size, signed, _ := number(d)
		had, wasSigned, ok := number(src)
		if !ok || had > size || had != size && (signed || wasSigned) {
			return no()
		}
		*ms = append(*ms, move{to, from, had}) // little-endian
	case *btf.Array:
		s, ok := src.(*btf.Array)
		if !ok || s.Nelems > d.Nelems {
			return no()
		}
		dn, err := btf.Sizeof(d.Type)
		sn, err2 := btf.Sizeof(s.Type)
		if err = errors.Join(err, err2); err != nil {
			return err
		}
		for i := range s.Nelems {
			if err := ms.add(d.Type, s.Type, to+i*uint32(dn), from+i*uint32(sn)); err != nil {
				return err
			}
		}
	case *btf.Struct:
		s, ok := src.(*btf.Struct)
		if !ok {
			return no()
		}
		for _, m := range d.Members {
			i := slices.IndexFunc(s.Members, func(x btf.Member) bool { return x.Name == m.Name })
			if i < 0 {
				continue
			}
			was := s.Members[i]
			if m.BitfieldSize != 0 || was.BitfieldSize != 0 {
				return fmt.Errorf("field %s is a bit field", m.Name)
			}
			if err := ms.add(m.Type, was.Type, to+m.Offset.Bytes(), from+was.Offset.Bytes()); err != nil {
				return fmt.Errorf("field %s: %w", m.Name, err)
			}
		}
	default:
		return no()
	}
	return nil
}

// number is an integer's size, an enumeration's too.
func number(t btf.Type) (size uint32, signed, ok bool) {
	switch t := t.(type) {
	case *btf.Int:
		return t.Size, t.Encoding == btf.Signed, true
	case *btf.Enum:
		return t.Size, t.Signed, true
	}
	return 0, false, false
}

// joined makes one move of neighbours.
func (ms moves) joined() (out moves) {
	for _, m := range ms {
		if n := len(out); n > 0 && out[n-1].dst+out[n-1].n == m.dst && out[n-1].src+out[n-1].n == m.src {
			out[n-1].n += m.n
			continue
		}
		out = append(out, m)
	}
	return out
}

// reader reads an earlier agent's map as if it were one of this layout.
type reader struct {
	m              *ebpf.Map
	key, value     moves
	nkey, nvalue   int          // sizes in this layout
	inKey, inValue reflect.Type // of the earlier layout
}

// newReader compares the map with what spec, one of this layout, says.
func newReader(m *ebpf.Map, spec *ebpf.MapSpec) (*reader, error) {
	h, err := m.Handle()
	if err != nil {
		return nil, fmt.Errorf("types of map %s: %w", spec.Name, err)
	}
	defer h.Close()
	types, err := h.Spec(nil)
	if err != nil {
		return nil, fmt.Errorf("types of map %s: %w", spec.Name, err)
	}
	r := &reader{m: m, nkey: int(spec.KeySize), nvalue: int(spec.ValueSize)}
	if r.key, err = movesOf(types, spec.Key, m.KeySize(), spec.KeySize); err != nil {
		return nil, fmt.Errorf("keys of map %s: %w", spec.Name, err)
	}
	if r.value, err = movesOf(types, spec.Value, m.ValueSize(), spec.ValueSize); err != nil {
		return nil, fmt.Errorf("values of map %s: %w", spec.Name, err)
	}
	r.inKey, r.inValue = reflect.ArrayOf(int(m.KeySize()), reflect.TypeFor[byte]()), reflect.ArrayOf(int(m.ValueSize()), reflect.TypeFor[byte]())
	return r, nil
}

// movesOf finds a struct by its name; anything else must be of the same size.
func movesOf(types *btf.Spec, want btf.Type, have, size uint32) (moves, error) {
	s, ok := btf.UnderlyingType(want).(*btf.Struct)
	if !ok {
		if have != size {
			return nil, fmt.Errorf("%d bytes, not %d", have, size)
		}
		return moves{{0, 0, size}}, nil
	}
	var was *btf.Struct
	if err := types.TypeByName(s.Name, &was); err != nil {
		return nil, err
	}
	return movesBetween(s, was)
}

// each calls fn for the entries of a hash, some at a time, with keys and values of this layout that are good during the call, until it returns
// an error.
func (r *reader) each(fn func(keys, values []byte, n int) error) error {
	var cursor ebpf.MapBatchCursor
	var wasKeys, wasValues reflect.Value
	var keys, values []byte
	grow := func(size int) {
		wasKeys, wasValues = reflect.MakeSlice(reflect.SliceOf(r.inKey), size, size), reflect.MakeSlice(reflect.SliceOf(r.inValue), size, size)
		keys, values = make([]byte, size*r.nkey), make([]byte, size*r.nvalue)
	}
	grow(batchSize)
	for {
		n, err := r.m.BatchLookup(&cursor, wasKeys.Interface(), wasValues.Interface(), nil)
		if errors.Is(err, unix.ENOSPC) { // one bucket holds more
			grow(2 * wasKeys.Len())
			continue
		}
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return err
		}
		for i := range n {
			r.key.apply(keys[i*r.nkey:][:r.nkey], wasKeys.Index(i).Slice(0, r.inKey.Len()).Bytes())
			r.value.apply(values[i*r.nvalue:][:r.nvalue], wasValues.Index(i).Slice(0, r.inValue.Len()).Bytes())
		}
		if n > 0 {
			if err := fn(keys[:n*r.nkey], values[:n*r.nvalue], n); err != nil {
				return err
			}
		}
		if err != nil {
			return nil // the end
		}
	}
}

// lookup reads one entry; key is an integer of the key's size.
func (r *reader) lookup(key any) ([]byte, error) {
	raw, out := make([]byte, r.m.ValueSize()), make([]byte, r.nvalue)
	if err := r.m.Lookup(key, raw); err != nil {
		return nil, err
	}
	r.value.apply(out, raw)
	return out, nil
}

// perCPU has room for one entry of a map with a value for each CPU, as the earlier layout has it.
func (r *reader) perCPU() reflect.Value {
	cpus := ebpf.MustPossibleCPU() // the library has asked already
	return reflect.MakeSlice(reflect.SliceOf(r.inValue), cpus, cpus)
}

// copyTo copies the whole map. dst has room for it.
func (r *reader) copyTo(dst *ebpf.Map) error {
	switch r.m.Type() {
	case ebpf.Hash:
		outKey, outValue := reflect.ArrayOf(r.nkey, reflect.TypeFor[byte]()), reflect.ArrayOf(r.nvalue, reflect.TypeFor[byte]())
		return r.each(func(keys, values []byte, n int) error {
			ks := reflect.NewAt(reflect.ArrayOf(n, outKey), reflect.ValueOf(keys).UnsafePointer()).Elem().Slice(0, n)
			vs := reflect.NewAt(reflect.ArrayOf(n, outValue), reflect.ValueOf(values).UnsafePointer()).Elem().Slice(0, n)
			_, err := dst.BatchUpdate(ks.Interface(), vs.Interface(), nil)
			return err
		})
	case ebpf.Array:
		for i := range r.m.MaxEntries() {
			v, err := r.lookup(i)
			if err == nil {
				err = dst.Put(i, v)
			}
			if err != nil {
				return err
			}
		}
	case ebpf.PerCPUArray:
		in := r.perCPU()
		cpus := in.Len()
		out := reflect.MakeSlice(reflect.SliceOf(reflect.ArrayOf(r.nvalue, reflect.TypeFor[byte]())), cpus, cpus)
		for i := range r.m.MaxEntries() {
			if err := r.m.Lookup(i, in.Interface()); err != nil {
				return err
			}
			for cpu := range cpus {
				r.value.apply(out.Index(cpu).Slice(0, r.nvalue).Bytes(), in.Index(cpu).Slice(0, r.inValue.Len()).Bytes())
			}
			if err := dst.Put(i, out.Interface()); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("a map of type %s cannot be converted", r.m.Type())
	}
	return nil
}

// versionOf reads the version from settings of any layout: it is in front.
func versionOf(settings []byte) uint32 {
	if len(settings) < 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(settings)
}
