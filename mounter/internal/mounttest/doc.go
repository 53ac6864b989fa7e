// Package mounttest is what tests of mounts have in common.
package mounttest
