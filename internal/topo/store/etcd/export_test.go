package etcd

// Holds reports whether the client has in memory what transactions are checked against.
func Holds(s *Store) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cache.graph != nil
}
