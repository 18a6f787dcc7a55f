#!/bin/sh
exec hpc-consumer image update "$@"
