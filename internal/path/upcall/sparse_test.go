package upcall

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// A port that sends now and then waits for the turn under way alone, when the source is not looked at before it ends, however many others want more than they get.
func TestSparseComesNext(t *testing.T) {
	s := &script{}
	q := newQueue(s, 50)
	const rogues, cost = 8, 10
	for i := range rogues {
		s.add(uint32(10+i), 2000)
	}
	busy := func(uint32) int64 { return cost }
	for range 40 { // its first packet comes when all have been there for a while
		for range 97 {
			serve(t, q, s, busy)
		}
		start := s.clock.Now()
		s.add(1, 1)
		s.add(2, 1) // two of them, in their order
		var before []uint32
		for seen := 0; seen < 2; {
			p, _ := serve(t, q, s, busy)
			before = append(before, p)
			if p < 10 {
				if seen++; int(p) != seen {
					t.Fatalf("order %v", before)
				}
			}
		}
		if waited := s.clock.Now() - start; waited > 50+2*cost {
			t.Fatalf("waited %d ns for %v", waited, before)
		}
	}
}

// Whoever sends one packet at a time, as soon as its last one was served, takes no more by coming next than those who always want more,
// be there as many of them as may be.
func TestSparseStarvesNobody(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &script{}
		quantum := rapid.Int64Range(10, 200).Draw(t, "quantum")
		q := newQueue(s, time.Duration(quantum))
		greedy, sly := rapid.IntRange(1, 5).Draw(t, "greedy"), rapid.IntRange(1, 20).Draw(t, "sly")
		most := rapid.Int64Range(1, 2*quantum).Draw(t, "most")
		served := make([]int64, greedy+sly)
		for i := range served {
			n := 1
			if i < greedy {
				n = 3000
			}
			s.add(uint32(i), n)
		}
		for range 3000 {
			if rapid.IntRange(0, 3).Draw(t, "a batch has left") == 0 {
				q.Look()
			}
			m, _ := q.Next(0)
			i := m.Key.InPort
			c := rapid.Int64Range(1, most).Draw(t, "cost")
			s.clock.Advance(time.Duration(c))
			served[i] += c
			q.Done(m, c)
			if int(i) >= greedy {
				// At the front: what is in the script of the greedy ones has been read already, or may come later.
				s.ring = append([]arrival{{i, 0, s.clock.Now()}}, s.ring...)
			}
			for j := range greedy {
				for k := range served {
					if lead := served[k] - served[j]; lead > 3*(quantum+most) {
						t.Fatalf("port %d is %d ns ahead of port %d, which always waits: %v", k, lead, j, served)
					}
				}
			}
		}
	})
}

// What was let in at the front is told apart from what waits behind it, and only from that.
func TestSparseIsToldApart(t *testing.T) {
	s := &script{}
	q := newQueue(s, 50)
	busy := func(uint32) int64 { return 10 }
	s.add(1, 1)
	if serve(t, q, s, busy); q.Apart() {
		t.Fatal("nobody waits behind it")
	}
	for i := range uint32(3) {
		s.add(10+i, 100)
	}
	for range 31 { // all have had their turn
		serve(t, q, s, busy)
	}
	s.add(1, 1)
	s.add(2, 2)
	for seen := 0; seen < 3; {
		p, _ := serve(t, q, s, busy)
		if p < 10 {
			seen++
		}
		if q.Apart() != (seen == 3) {
			t.Fatalf("after a miss of port %d, %d seen: apart %v", p, seen, q.Apart())
		}
	}
	if serve(t, q, s, busy); q.Apart() {
		t.Fatal("a port that always waits is not apart")
	}
}

// A turn that is under way when the source is looked at waits for who sends little, and then goes on.
func TestSparseInTheMidstOfATurn(t *testing.T) {
	s := &script{}
	q := newQueue(s, 100)
	s.add(10, 100)
	s.add(11, 100)
	busy := func(uint32) int64 { return 10 }
	var got []uint32
	serveOne := func() {
		p, _ := serve(t, q, s, busy)
		got = append(got, p)
	}
	for range 33 { // three turns, and three packets of one
		serveOne()
	}
	s.add(1, 1)
	q.Look()
	for range 9 {
		serveOne()
	}
	want := []uint32{11, 11, 11, 1, 11, 11, 11, 11, 11, 11, 11, 10}
	if !slices.Equal(got[30:], want) {
		t.Fatalf("order %v, want %v", got[30:], want)
	}
}

// A port that sends little comes next although each of its packets costs more than a quantum: it has paid by sitting out.
func TestSparseAndDearComesNext(t *testing.T) {
	s := &script{}
	const rogues, quantum = 4, 50
	q := newQueue(s, quantum)
	for i := range rogues {
		s.add(uint32(10+i), 3000)
	}
	pay := func(port uint32) int64 {
		if port == 1 {
			return quantum + 20
		}
		return 10
	}
	for range 20 {
		for range 8 * rogues * quantum / 10 { // eight rounds
			serve(t, q, s, pay)
		}
		s.add(1, 1)
		q.Look()
		if p, _ := serve(t, q, s, pay); p != 1 {
			t.Fatalf("port %d is served before it", p)
		}
	}
}
