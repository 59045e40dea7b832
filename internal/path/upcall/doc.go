// Package upcall is stage 2 of the packet's path: it takes admitted misses off one
// worker's ring and serves them in fair order between ports.
//
// Admission (package htb) bounds how many misses a port may have in flight; it does not say
// in what order they are served, and counts an expensive packet like a cheap one. Here
// service is deficit round robin (Shreedhar and Varghese, SIGCOMM 1995) in nanoseconds of
// measured processing time. As the cost of a packet is known only after it has been
// processed, a port may overdraw its turn by one packet and pays for it in its next
// turns (the surplus variant). Hence for two ports that are backlogged from the same moment on
//
//	|time(a) - time(b)| <= quantum + cost of the most expensive packet
//
// and a port that has been idle waits at most one turn of each port that is active. One that was idle for
// a whole round, as those are that send little, waits for the batch under way alone, and for its like.
//
// The source is read without blocking at the end of each turn, and when tokens have gone back, so that a miss on an
// idle port is seen at once while another port's backlog is being served.
package upcall
