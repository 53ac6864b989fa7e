package idempotency

import "maps"

// maxIdle is how many entries a keyMap has room for without giving any back.
const maxIdle = 128

// keyMap is a map by key that gives its memory back. A Go map never shrinks: a
// thousand mounts at once, once, would be paid for until the process ends, and
// a million for as long as one operation is stuck. The zero value is ready.
type keyMap[V any] struct {
	m    map[string]V
	peak int // most entries since m was made
}

func (k *keyMap[V]) len() int          { return len(k.m) }
func (k *keyMap[V]) get(key string) V  { return k.m[key] }
func (k *keyMap[V]) all() map[string]V { return k.m }

func (k *keyMap[V]) set(key string, v V) {
	if k.m == nil {
		k.m = make(map[string]V)
	}
	k.m[key] = v
	k.peak = max(k.peak, len(k.m))
}

// delete makes the map anew when three of four entries are gone: what that costs
// is less than what the deletions did.
func (k *keyMap[V]) delete(key string) {
	delete(k.m, key)
	if k.peak <= maxIdle || len(k.m) > k.peak/4 {
		return
	}
	m := make(map[string]V, len(k.m))
	maps.Copy(m, k.m)
	k.m, k.peak = m, len(m)
}
