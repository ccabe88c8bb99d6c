"""`python3 -m oci_bpf_hook` is the command `oci-bpf-hook`."""

import sys

from .cli.main import main

sys.exit(main())
