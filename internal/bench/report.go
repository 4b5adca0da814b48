package main

import "time"

func (b *bench) report(dir string, took time.Duration) error { return nil }
