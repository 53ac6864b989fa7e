// Package csidriver turns a backend into a CSI v1.13 driver.
package csidriver
