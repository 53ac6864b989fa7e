package nfs

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files; only for a new version")

// TestGolden: records are written, and read, as in the first release. Another format is
// another version.
func TestGolden(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 678, time.UTC)
	for name, record := range map[string]any{
		"share.v1": &siteInfo{Version: 1, ID: "ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
		"pin.v1":   &pin{Version: 1, Share: "main (nfs1:/srv)", ID: "ABCDEFGHIJKLMNOPQRSTUVWXYZ"},
		"volume.v1": &marker{
			Version: 1, Nonce: "abcdefgh", Key: keyOf("pv"), Name: "pv", SubDir: "ns/pv", State: stateArchiving,
			OnDelete: onDeleteArchive, Size: 1 << 30, Fingerprint: "f.1", Created: at, Options: []string{"vers=4.2"},
			Source: &origin{SnapshotID: "s1#share#" + keyOf("s")}, Ephemeral: "pod", Adopted: true, Legacy: "a#b#c",
			Inode: 12345678901, Root: 42, Target: "archived-x", Project: 1 << 20,
		},
		"snapshot.v1": &snapMark{
			Version: 1, Nonce: "abcdefgh", Key: keyOf("s"), Name: "s", VolumeID: "n1#share#" + keyOf("pv"), VolumeKey: keyOf("pv"),
			SubDir: "ns/pv", Size: 1 << 30, Fingerprint: "f.1", Created: at, State: stateCopying, Still: true, Legacy: true,
			Group: "g1#share#" + keyOf("g"), Hook: true, Path: ".zfs/snapshot/csi-x/ns/pv",
		},
		"group.v1": &setMark{
			Version: 1, Nonce: "abcdefgh", Key: keyOf("g"), Name: "g", Members: []string{keyOf("a"), keyOf("b")}, Fingerprint: "f.1",
			Created: at, Ready: true,
		},
		"claim.v1": &claim{Version: 1, Path: "ns/pv", Key: keyOf("pv"), Inode: 7, Root: 42},
	} {
		path := filepath.Join("testdata", name+".json")
		b, err := json.MarshalIndent(record, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, '\n')
		if *update {
			if err := os.WriteFile(path, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, want) {
			t.Errorf("%s:\n%s\nwant:\n%s", name, b, want)
		}
		read := reflect.New(reflect.TypeOf(record).Elem()).Interface()
		d := json.NewDecoder(bytes.NewReader(want))
		d.DisallowUnknownFields()
		if err := d.Decode(read); err != nil || !reflect.DeepEqual(read, record) {
			t.Errorf("%s reads as %+v, %v", name, read, err)
		}
	}
}
