package model

import "iter"

// keySet is a set of keys; the zero one is empty. Most objects are referred to by one other: that takes no map.
type keySet struct {
	one  Key              // while more is nil; zero: none
	more map[Key]struct{} // once there have been two
}

func (s *keySet) add(k Key) {
	switch {
	case s.more != nil:
		s.more[k] = struct{}{}
	case s.one == Key{} || s.one == k:
		s.one = k
	default:
		s.more = map[Key]struct{}{s.one: {}, k: {}}
		s.one = Key{}
	}
}

func (s *keySet) remove(k Key) {
	delete(s.more, k)
	if s.one == k {
		s.one = Key{}
	}
}

func (s *keySet) empty() bool { return len(s.more) == 0 && s.one == Key{} }

// all goes through the keys, in no order.
func (s *keySet) all() iter.Seq[Key] {
	return func(yield func(Key) bool) {
		if s.one != (Key{}) && !yield(s.one) {
			return
		}
		for k := range s.more {
			if !yield(k) {
				return
			}
		}
	}
}
