
  localparam LOAD_BYTES = @LOAD_BYTES@;           // words of load.hex

  // A byte of a frame, tlast above it, and with the last one the answer to the frame.
  reg [19:0] frames [0:LOAD_BYTES-1];
  reg answering;

  // Bring weights in; the network must hold its input meanwhile.
  task load;
    integer at;
    begin
      s_axis_tvalid = 1'b1;
      m_axis_tready = 1'b0;
      at = 0;
      quiet = 0;
      answering = 1'b0;
      while (!failed && (at < LOAD_BYTES || answering)) begin
        s_axis_tvalid = at > 0 && held_by_load === 1'b1;
        s_load_tvalid = !answering;
        s_load_tdata = frames[answering ? at - 1 : at][7:0];
        s_load_tlast = frames[answering ? at - 1 : at][8];
        m_load_tready = answering;
        #5;
        quiet = quiet + 1;
        if (s_axis_tvalid && s_axis_tready !== 1'b0)
          fail("the input is not held during a load");
        if (answering && m_load_tvalid === 1'b1) begin
          if (m_load_tdata !== frames[at-1][19:12])
            fail("a frame has another answer than load.hex says");
          answering = 1'b0;
          quiet = 0;
        end else if (!answering && s_load_tready === 1'b1) begin
          answering = frames[at][8];
          at = at + 1;
          quiet = 0;
        end
        if (quiet == PATIENCE)
          fail("the load port does nothing for too long");
        s_axis_tvalid = 1'b0;
        aclk = 1'b1;
        #5;
        aclk = 1'b0;
        cycle = cycle + 1;
      end
      s_load_tvalid = 1'b0;
      m_load_tready = 1'b0;
      if (held_by_load !== 1'b0)
        fail("the network is held after a complete load");
      quiet = 0;
    end
  endtask
