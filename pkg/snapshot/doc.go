// Package snapshot keeps what a node hands over to the one that is started
// after it: a file that is written at an orderly end and read at the next
// start, if it is whole, fresh and our own. What is inside is the owner's.
//
// # The file
//
// Everything is big-endian. Magic and version, then blocks: a header, data, an
// end. Nothing follows the end.
//
//	magic    8 bytes   "ctgosnap"
//	version  2 bytes   1
//	block    1 byte    kind: 1 header, 2 data, 3 end
//	         4 bytes   length of the payload, at most 256 KiB
//	         n bytes   payload
//	         4 bytes   CRC-32C of the whole file up to here, without the sums before
//
// The payload of the header is
//
//	16 bytes  boot id of the kernel
//	 8 bytes  nanoseconds since the boot, suspension included
//	 8 bytes  nanoseconds of the UNIX clock
//	 4 bytes  the next sequence number
//	 n bytes  identity: whose the file is, as text
//
// and that of the end the number of data blocks, 4 bytes. As each sum covers all
// that came before, blocks cannot be left out, repeated or exchanged either.
//
// Who reads gets nothing before all of the file was found to be good.
package snapshot

import (
	"hash/crc32"
	"time"
)

// DefaultMaxAge is how old a snapshot may be when nothing is configured.
const DefaultMaxAge = 60 * time.Second

// Config says where a snapshot is and how long it is worth something.
type Config struct {
	// Path is the file. Empty: there are no snapshots.
	Path string
	// MaxAge is how old it may be when it is read.
	MaxAge time.Duration
}

const (
	magic     = "ctgosnap"
	version   = 1
	preamble  = len(magic) + 2
	blockHead = 5
	blockTail = 4
	headSize  = 36 // without the identity
	// maxBlock bounds what a reader takes into memory at once.
	maxBlock = 256 << 10
)

// The kinds of blocks.
const (
	kindHeader = iota + 1
	kindData
	kindEnd
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)
