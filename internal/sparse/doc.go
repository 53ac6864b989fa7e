// Package sparse copies files with holes: by sharing their blocks where the file
// system can, else what they hold and not their holes. The backends that keep
// volumes in files have it in common.
package sparse
