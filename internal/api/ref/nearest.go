package ref

import "slices"

// maxNearest bounds how many candidates are compared: a suggestion is not worth a second.
const maxNearest = 10_000

// Nearest is the candidate with the fewest edits from s, or "" when none is close: more than one
// edit in three characters, and one in any case, is another word.
func Nearest(s string, candidates []string) string {
	slices.Sort(candidates) // so that a tie is always broken alike
	best, at := "", max(1, len(s)/3)+1
	for _, c := range candidates[:min(len(candidates), maxNearest)] {
		if d := distance(s, c); d < at {
			best, at = c, d
		}
	}
	return best
}

// distance is Levenshtein's, over bytes, with a swap of neighbours as one edit.
func distance(a, b string) int {
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			cur[j] = min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				cur[j] = min(cur[j], prev2[j-2]+1)
			}
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
