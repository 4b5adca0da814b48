// Package ftfw decides what one FTFW node sends, sends again and acknowledges.
package ftfw
