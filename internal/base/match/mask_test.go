package match

import "testing"

// TestDHCP: under a mask with DHCP two destination ports are one exactly when they are equal, or neither is one of DHCP's.
func TestDHCP(t *testing.T) {
	ours := map[uint16]bool{67: true, 68: true, 546: true, 547: true}
	for _, a := range []uint16{0, 1, 66, 67, 68, 69, 545, 546, 547, 548, 0x4300, 65535} {
		for _, b := range []uint16{0, 67, 68, 546, 547, 4242} {
			m := Proto | DHCP
			same := m.Apply(&Key{DstPort: a}) == m.Apply(&Key{DstPort: b})
			if want := a == b || !ours[a] && !ours[b]; same != want {
				t.Errorf("ports %d and %d: alike %v, want %v", a, b, same, want)
			}
			m |= DstPort
			if same := m.Apply(&Key{DstPort: a}) == m.Apply(&Key{DstPort: b}); same != (a == b) {
				t.Errorf("ports %d and %d with the whole field: alike %v", a, b, same)
			}
		}
	}
}
