package interop

import (
	"fmt"
	"slices"
	"strings"
)

// score counts what came out.
type score struct {
	pairs, same, failed          int
	delivered, answered, nothing int
	followers                    int
	different                    map[string]int
}

func newScore() *score { return &score{different: make(map[string]int)} }

// judge reports whether both sides agree, or differ as is meant.
func (s *score) judge(x *pair) bool {
	s.pairs++
	switch {
	case len(x.ours) == 0:
		s.nothing++
	case strings.HasPrefix(x.ours[0].kind, "*"):
		s.answered++
	default:
		s.delivered++
	}
	if x.p.ct != "new" {
		s.followers++
	}
	ours, theirs := slices.Clone(x.ours), slices.Clone(x.theirs)
	var by []string
	for i := 0; i < len(differences) && !ours.equal(theirs); i++ {
		if d := differences[i]; d.take(x, &ours, &theirs) {
			by = append(by, d.name)
		}
	}
	switch {
	case !ours.equal(theirs):
		s.failed++
		return false
	case by == nil:
		s.same++
	}
	for _, name := range by {
		s.different[name]++
	}
	return true
}

func (s *score) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d pairs, of which %d follow others: %d delivered, %d answered by a device, %d end\n", s.pairs, s.followers, s.delivered, s.answered, s.nothing)
	fmt.Fprintf(&b, "%d the same, %d unexplained\n", s.same, s.failed)
	for _, d := range differences {
		fmt.Fprintf(&b, "%6d %s\n", s.different[d.name], d.name)
	}
	return b.String()
}
