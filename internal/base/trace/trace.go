// Package trace holds the tree that a packet leaves behind: one node for each
// stage and device it met. A nil *Node records nothing and costs nothing, but
// callers on the packet's path guard with `if t != nil` so that arguments are not
// even evaluated.
package trace

import (
	"fmt"
	"io"
)

// Node is one step. The root is the packet. Not safe for concurrent use.
type Node struct {
	Stage string  `json:"stage"`          // datapath, upcall, flow, prep, sim, xlate, worker
	What  string  `json:"what"`           // the device or table, by kind and name: "bridge blue"
	Text  string  `json:"text,omitempty"` // what happened there, in the words of the design
	Sub   []*Node `json:"sub,omitempty"`  // what followed from it, in order
}

// Add appends a child and returns it.
func (n *Node) Add(stage, what, format string, args ...any) *Node {
	if n == nil {
		return nil
	}
	c := &Node{Stage: stage, What: what, Text: fmt.Sprintf(format, args...)}
	n.Sub = append(n.Sub, c)
	return c
}

// Find returns the first node, depth first, for which f is true, or nil.
func (n *Node) Find(f func(*Node) bool) *Node {
	if n == nil || f(n) {
		return n
	}
	for _, c := range n.Sub {
		if m := c.Find(f); m != nil {
			return m
		}
	}
	return nil
}

// Render writes the tree as text, one node a line, children indented.
func (n *Node) Render(w io.Writer) error { return n.render(w, "", "") }

func (n *Node) render(w io.Writer, head, rest string) error {
	line := n.What
	if n.Stage != "" {
		line = fmt.Sprintf("%-8s %s", n.Stage, n.What)
	}
	if n.Text != "" {
		line += ": " + n.Text
	}
	if _, err := fmt.Fprintln(w, head+line); err != nil {
		return err
	}
	for i, c := range n.Sub {
		h, r := rest+"├─ ", rest+"│  "
		if i == len(n.Sub)-1 {
			h, r = rest+"└─ ", rest+"   "
		}
		if err := c.render(w, h, r); err != nil {
			return err
		}
	}
	return nil
}
