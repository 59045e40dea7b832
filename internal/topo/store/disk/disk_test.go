package disk

import (
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/viaduct-net/viaduct/internal/topo/model"
)

func sample() *Snapshot {
	br, p := uuid.UUID{1}, uuid.UUID{2}
	return &Snapshot{
		Host: uuid.UUID{9}, Name: "a host\nwith \"quotes\"", Written: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Revision: 77,
		Objects: []model.Object{
			&model.Bridge{Meta: model.Meta{ID: br, Name: "net 1", Tenant: "t", Revision: 5}, AdminStateUp: true},
			&model.Port{Meta: model.Meta{ID: p, Revision: 77}, BridgeID: br, Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/32")}, TunnelKey: 6},
		},
		Keys:   map[string]string{".conf/template/default": "", ".conf/x": "a\nb \"c\""},
		Blocks: []string{"nat/x/1.2.3.4/1024"},
		Dead:   []uuid.UUID{{3}, {4}},
		Learnt: map[string]string{"learnt/neighbour/x/10.0.0.7": `{"mac":"02:00:00:00:00:07"}`},
	}
}

func TestRoundTrip(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	want := sample()
	for range 2 { // the second replaces
		if err := Write(dir, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Read(dir, want.Name)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("read %+v\nwant %+v", got, want)
	}
	if list, _ := os.ReadDir(dir); len(list) != 1 {
		t.Errorf("left behind: %v", list)
	}
}

// A file that an agent has written that kept less is read, and what is not in it is nothing.
func TestOlderFile(t *testing.T) {
	const body = `viaduct topology 1
host 09000000-0000-0000-0000-000000000000 "h1"
written 2026-01-02T03:04:05Z
revision 77
block "nat/x/1.2.3.4/1024"
`
	got, err := parse(fmt.Appendf(nil, "%s%s %08x\n", body, sumWord, crc32.Checksum([]byte(body), castagnoli)))
	if err != nil || got.Name != "h1" || got.Revision != 77 || len(got.Blocks) != 1 || len(got.Dead)+len(got.Learnt) != 0 {
		t.Errorf("%+v, %v", got, err)
	}
}

// Whatever byte is another, and wherever the file ends too early, it is refused.
func TestDamage(t *testing.T) {
	dir := t.TempDir()
	if _, err := Read(dir, "h"); !Missing(err) {
		t.Errorf("no file: %v", err)
	}
	s := sample()
	if err := Write(dir, s); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, File)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Read(dir, "another"); !errors.Is(err, ErrRefused) {
		t.Errorf("of another host: %v", err)
	}
	for i := range whole {
		for _, b := range [][]byte{whole[:i], append(append(append([]byte{}, whole[:i]...), whole[i]^0x20), whole[i+1:]...)} {
			if _, err := parse(b); err == nil {
				t.Fatalf("damage at byte %d is not seen", i)
			}
		}
	}
}
